"""Faults of normalisation: statistics of too few values, or that evaluation cannot use."""

from __future__ import annotations

from collections.abc import Iterator

from torch.nn.modules.batchnorm import _BatchNorm

from leadline.doctor.causes.architecture import smallest_batch
from leadline.doctor.examination import Examination
from leadline.doctor.finding import Evidence, Finding

FEW_VALUES = 4
"""Values a batch norm averages over, below which its statistics are mostly chance."""

WORSE = 2.0
"""Times that the loss may rise when evaluation mode replaces the batch's statistics."""


def signs(seen: Examination) -> Iterator[Finding]:
    """What the norm layers say."""
    yield from _few_values(seen)
    yield from _momentum(seen)
    yield from _evaluation(seen)


def _few_values(seen: Examination) -> Iterator[Finding]:
    count = smallest_batch(seen)
    training = any(isinstance(m, _BatchNorm) and m.training for m in seen.model.modules())
    if training and 0 < count < FEW_VALUES:
        yield Finding(
            cause="batch_size_too_small",
            severity="warning",
            summary=f"a batch norm averages over {count} values only: what it subtracts is chance",
            layers=tuple(x.name for x in seen.survey.layers if "batchnorm" in x.kind.lower())[-3:],
            evidence=(
                Evidence(
                    quantity="values behind each statistic",
                    measured=float(count),
                    expected=f"{FEW_VALUES} or more, better 32",
                ),
            ),
            remedy="use larger batches, or group or layer norm, which need none",
            source="Wu & He 2018, Group Normalization",
        )


def _momentum(seen: Examination) -> Iterator[Finding]:
    frozen = [
        name
        for name, module in seen.model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and module.momentum == 0
    ]
    if frozen:
        yield Finding(
            cause="norm_eval_stats_broken",
            severity="error",
            summary="batch norm layers with momentum 0 never update their running statistics: "
            "evaluation uses those of the first moment",
            layers=tuple(frozen),
            evidence=(Evidence(quantity="momentum", measured=0.0, expected="0.1, or None"),),
            remedy="use momentum=0.1, torch's default (it is the share of the new batch)",
        )


def _evaluation(seen: Examination) -> Iterator[Finding]:
    before, after = seen.survey.loss, seen.evaluated_loss
    if after is None or not after > WORSE * abs(before) + 0.5:
        return
    yield Finding(
        cause="norm_eval_stats_broken",
        severity="warning",
        summary="the same batch has a far larger loss in evaluation mode: the running statistics "
        "of the batch norms do not fit these data",
        evidence=(
            Evidence(
                quantity="loss in evaluation mode",
                measured=after,
                expected=f"about {before:.3g}, as in training mode",
            ),
        ),
        remedy="normalise the inputs as in training, let the statistics settle (momentum 0.1, more "
        "steps), or recompute them with torch.optim.swa_utils.update_bn",
    )
