"""Faults of numerics: NaN and infinity, the places where they wait, answers that do not repeat."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch

from leadline.core.taps import first_nonfinite
from leadline.doctor.examination import Examination, copied
from leadline.doctor.finding import Evidence, Finding
from leadline.measure.batch import inputs_finite
from leadline.measure.magnitudes import numbers_in

ROUNDING = 1e-4
"""Relative difference that other kernels and reduction orders may make in float32."""


def signs(seen: Examination) -> Iterator[Finding]:
    """What the numbers say."""
    if inputs_finite(seen.batch):
        yield from _nonfinite(seen)
    yield from _unstable_loss(seen)
    yield from _traps(seen)
    yield from _repeats(seen)


def _nonfinite(seen: Examination) -> Iterator[Finding]:
    loss = seen.survey.loss
    if not math.isfinite(loss):
        with torch.no_grad():
            where = first_nonfinite(
                seen.model, functools.partial(copied(seen.batch).forward, seen.model)
            )
        yield Finding(
            cause="nonfinite_value",
            severity="error",
            summary="the loss is not finite before the first step: it begins in "
            + (f"layer {where!r}" if where else "the loss function"),
            layers=(where,) if where else (),
            evidence=(Evidence(quantity="loss", measured=loss, expected="a finite number"),),
            remedy="look at that layer's weights and at what it divides by, takes the logarithm "
            "or the root of"
            if where
            else "use the loss on logits; add no log of 0",
        )
        return
    bad = [
        name
        for name, gradient in seen.survey.gradients.items()
        if gradient is not None and not bool(torch.isfinite(numbers_in(gradient)).all())
    ]
    if bad:
        yield Finding(
            cause="gradient_of_sqrt_at_zero",
            severity="error",
            summary="the loss is finite and its gradient is not: a root, norm or quotient at 0, "
            "perhaps in the branch a torch.where does not take",
            layers=tuple(reversed(bad)),
            evidence=(
                Evidence(
                    quantity="parameters whose gradient is NaN or infinite",
                    measured=float(len(bad)),
                    expected="none",
                ),
            ),
            remedy="add a small number inside the root (sqrt(x + 1e-12)), or clamp before it",
            source="pytorch/pytorch#2421: the gradient of norm at 0",
        )


def _unstable_loss(seen: Examination) -> Iterator[Finding]:
    nature = seen.nature
    if nature is None or nature.extremes_finite is not False:
        return
    probabilities = nature.kind in ("log_of_probabilities", "binary_probabilities")
    yield Finding(
        cause="loss_numerically_unstable",
        severity="warning",
        summary="the loss becomes NaN or infinite when the network is "
        + ("certain (a probability of 0 or 1)" if probabilities else "very sure (logits of 1000)"),
        evidence=(
            Evidence(
                quantity="loss at probabilities of 0 and 1"
                if probabilities
                else "loss at logits of ±1000",
                measured="not finite",
                expected="a finite number",
            ),
        ),
        remedy="use torch's own loss on logits: cross_entropy or binary_cross_entropy_with_logits",
    )


def _traps(seen: Examination) -> Iterator[Finding]:
    if seen.nature is not None and seen.nature.kink_finite is False:
        yield Finding(
            cause="gradient_of_sqrt_at_zero",
            severity="warning",
            summary="the loss has no finite gradient where it is 0: the first perfect batch turns "
            "every weight into NaN",
            evidence=(
                Evidence(
                    quantity="gradient of the loss at the targets",
                    measured="not finite",
                    expected="a finite number",
                ),
            ),
            remedy="use the mean squared error itself, or sqrt(mse + 1e-12)",
        )
    if seen.determinism is not None and seen.determinism.zeros_finite is False:
        yield Finding(
            cause="gradient_of_sqrt_at_zero",
            severity="warning",
            summary="an input of zeros, as padding or a black picture is, gives NaN or infinity",
            evidence=(
                Evidence(
                    quantity="output for an input of zeros",
                    measured="not finite",
                    expected="a finite number",
                ),
            ),
            remedy="add a small number where the model divides by a norm or a spread",
        )


def _repeats(seen: Examination) -> Iterator[Finding]:
    found = seen.determinism
    if found is not None and found.repeated > ROUNDING:
        yield Finding(
            cause="nondeterministic",
            severity="warning",
            summary="the same input gives another output, with every random stream where it was",
            evidence=(
                Evidence(
                    quantity="largest relative difference of two passes",
                    measured=found.repeated,
                    expected=f"below {ROUNDING:g}",
                ),
            ),
            remedy="draw from torch's generators only, and keep no state between two passes",
        )
