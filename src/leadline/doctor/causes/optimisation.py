"""Faults of optimisation that one step shows: rates that are far too high, far too low, or 0."""

from __future__ import annotations

import math
from collections.abc import Iterator

from leadline.doctor.examination import Examination, settings
from leadline.doctor.finding import Evidence, Finding, Severity

HUGE = 1.0
"""An update as large as the weights themselves: what initialisation did is gone.

That alone is a warning: weights that begin near 0 on purpose may grow so in a sound first step.
"""

LARGE = 0.3
"""An update of almost a third of the weights, if the loss of the batch rises by it as well."""

USUAL = 0.01
"""An update of the weights that most first steps stay within."""

TINY = 1e-6
"""Few of a weight's bits: float32 adds nothing below 1.2e-7 of it, and a million steps at this
size lead no further than the weight's own length."""

WORSE = 1.5
"""Times that the loss may rise on the batch the step was made for."""

SOURCE = "Karpathy: the ratio of update to weight is usually about 1e-3"


def signs(seen: Examination) -> Iterator[Finding]:
    """What the first step says."""
    rates = [float(group["lr"]) for group in settings(seen) if "lr" in group]
    step = seen.step
    if rates and not seen.scheduled and max(abs(rate) for rate in rates) == 0:
        yield _low("error", "the learning rate is 0: no step changes anything", 0.0, 0.0)
    elif rates and min(rates) < 0:
        yield Finding(
            cause="lr_negative",
            severity="error",
            summary="a negative learning rate climbs: the loss grows with every step",
            evidence=(Evidence(quantity="lr", measured=min(rates), expected="above 0"),),
            remedy="use a positive rate",
        )
    elif step is not None:
        worse = step.after > WORSE * abs(step.before) + 0.5
        if not math.isfinite(step.after) or (worse and step.typical > LARGE):
            yield _high(seen, "error", step.rate)
        elif step.typical > HUGE or step.after > 2 * WORSE * abs(step.before) + 1:
            yield _high(seen, "warning", step.rate)
        elif 0 < step.typical < TINY and not seen.scheduled:
            yield _low(
                "warning",
                "the steps are hardly larger than what float32 can add to the weights",
                step.rate,
                step.typical,
            )


def _high(seen: Examination, severity: Severity, rate: float) -> Finding:
    step = seen.step
    assert step is not None
    known = 0 < step.typical < math.inf
    lower = rate * min(0.1, USUAL / step.typical) if known else rate / 10
    worst = sorted(step.ratios, key=lambda name: -step.ratios[name])
    return Finding(
        cause="lr_too_high",
        severity=severity,
        summary=f"one step at rate {rate:g} takes the loss of its own batch from {step.before:.4g} "
        f"to {step.after:.4g}",
        layers=tuple(worst[:5]),
        evidence=(
            Evidence(
                quantity="median of the update's norm over the weights'",
                measured=step.typical,
                expected="about 1e-3, below 0.1",
            ),
            Evidence(
                quantity="loss of the batch after one step",
                measured=step.after,
                expected=f"below {step.before:.4g}",
            ),
        ),
        remedy=f"lower the rate, to about {lower:.1g}; a warm-up helps when it must be high",
        source=SOURCE,
    )


def _low(severity: Severity, summary: str, rate: float, ratio: float) -> Finding:
    return Finding(
        cause="lr_too_low",
        severity=severity,
        summary=summary,
        evidence=(
            Evidence(quantity="lr", measured=rate, expected="1e-4 to 1e-1 for most networks"),
            Evidence(
                quantity="median of the update's norm over the weights'",
                measured=ratio,
                expected="about 1e-3",
            ),
        ),
        remedy="raise the rate a thousandfold and look again: leadline check says when it is "
        "too high",
        source=SOURCE,
    )
