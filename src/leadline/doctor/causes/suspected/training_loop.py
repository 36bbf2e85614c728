"""Suspicions about the loop as a Setup says it: frozen parameters, clipping, the schedule."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedies import optimisation
from leadline.doctor.remedy import Remedy
from leadline.doctor.suspicion import suspect

MOSTLY = 0.5
"""Part of the training for which a rate may be next to nothing before the schedule is suspected."""

NOTHING = 1e-3
"""Part of the highest rate that counts as next to nothing."""


def certain(patient: Patient) -> Iterator[Finding]:
    """A schedule that ends long before the training does."""
    schedule = rates_over_training(patient)
    if schedule is None:
        return
    highest = max(schedule)
    if highest <= 0:
        return
    share = sum(rate < NOTHING * highest for rate in schedule) / len(schedule)
    late = schedule[len(schedule) // 10 :]
    if share < MOSTLY or max(late) >= highest:
        return
    yield Finding(
        cause="scheduler_misused",
        severity="error" if share > 0.8 else "warning",
        summary=f"the schedule has brought the rate to nothing for {share:.0%} of the training: it "
        "is stepped once per batch, and its length may be meant in epochs",
        evidence=(
            Evidence(
                quantity="part of the steps at less than a thousandth of the highest rate",
                measured=share,
                expected=f"below {MOSTLY:g}",
            ),
        ),
        remedy="give the schedule its length in steps (epochs * len(loader)), or step it once per "
        "epoch",
        source="torch.optim.lr_scheduler",
        change=slower_schedule(patient),
        proven=True,
    )


def slower_schedule(patient: Patient) -> Remedy:
    """The schedule stepped once per epoch instead of once per step."""
    per_epoch = patient.drawn.per_epoch or 1
    steps = -(-per_epoch // patient.setup.accumulate)
    return optimisation.schedule_per_epoch(steps)


def rates_over_training(patient: Patient) -> list[float] | None:
    """The rate at every step of the whole training, from the schedule alone; None without one."""
    setup, total = patient.setup, patient.total_steps
    if setup.schedule is None or total is None or total > 200_000:
        return None
    try:
        optimizer = setup.optimizer(_stand_in(patient))
        schedule = setup.schedule(optimizer)
        rates = []
        for _ in range(total):
            rates.append(max(float(group["lr"]) for group in optimizer.param_groups))
            optimizer.step()
            schedule.step()
    except Exception as error:
        patient.limits.append(f"the schedule cannot be run to its end: {error}")
        return None
    return rates


def _stand_in(patient: Patient) -> nn.Module:
    """The model as built for the check: its weights do not change without gradients."""
    assert patient.seen is not None, "its optimizer was built"
    model = patient.seen.model
    for parameter in model.parameters():
        parameter.grad = None
    return model


def suspicions(patient: Patient) -> Iterator[Finding]:
    """Frozen layers with first weights; a bound on the gradient that is always met."""
    if patient.seen is None:
        return
    meant = (
        patient.setup.freezing.frozen_names(patient.seen.model) if patient.setup.freezing else ()
    )
    frozen = [
        (name, p)
        for name, p in patient.seen.model.named_parameters()
        if not p.requires_grad and name not in meant
    ]
    if frozen:
        count = sum(p.numel() for _, p in frozen)
        every = sum(p.numel() for p in patient.seen.model.parameters())
        names = tuple(name for name, _ in frozen)
        yield suspect(
            "params_frozen",
            "a part of the network is frozen, and does not learn",
            Evidence(
                quantity="share of the parameters that are frozen",
                measured=count / every,
                expected="0, unless they were trained before",
            ),
            change=optimisation.trainable_again(names),
            layers=names,
        )
    yield from _clipping(patient)


def _clipping(patient: Patient) -> Iterator[Finding]:
    bound = patient.setup.clip_grad
    seen = patient.seen
    if not bound or seen is None:
        return
    squares = [float(g.double().square().sum()) for g in seen.survey.gradients.values()
               if isinstance(g, torch.Tensor) and not g.is_sparse]  # fmt: skip
    norm = sum(squares) ** 0.5
    if norm > 20 * bound:
        yield suspect(
            "clip_too_small",
            "the bound on the gradient is far below what it usually is: every step is cut to a "
            "fraction",
            Evidence(
                quantity="norm of the first gradient over the bound",
                measured=norm / bound,
                expected="about 1",
            ),
            change=optimisation.clip_at(max(1.0, float(f"{norm:.1g}")), bound),
            source="Pascanu et al. 2013",
        )
