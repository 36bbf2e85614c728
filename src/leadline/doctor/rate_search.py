"""The rate search: a range test, down where a training is restless, up where it is slow.

Steps of the range are powers of ten, and the next is tried while the last one helped. A rate that
is only faster does not count (`comparison.hurries`), nor one that the training as it is would catch
up with before its end (`optimisation.goes_further`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from leadline.doctor.arm import Outcome
from leadline.doctor.causes.suspected import optimisation
from leadline.doctor.comparison import GOOD, better, closer, diverges, learns
from leadline.doctor.course import Course, Tried, attempt
from leadline.doctor.finding import Finding
from leadline.doctor.patient import Patient
from leadline.doctor.prescription import usual_rate
from leadline.doctor.remedies.optimisation import rate_times
from leadline.doctor.remedy import Remedy, together

AHEAD = 0.15
"""Part of the error that a rate has to gain more before it is named first."""

BESIDE = (3.0, 1 / 3)
"""Factors on a rate that helped, tried as well."""

AROUND = (0.1, 10.0, 0.01, 100.0)
"""Factors on a rate that may have been chosen around a fault."""

AGAIN = (10.0, 100.0, 1000.0)
"""Factors on a rate that a sick network had to be content with."""


def try_rates(patient: Patient, course: Course) -> Iterator[Tried]:
    """The learning-rate range test: down where the training is restless, up where it is slow.

    Plain gradient descent that gets nowhere at a usual rate is tried with another optimizer first.
    """
    restless = optimisation.restless(course.base)
    stuck = not learns(course.base)
    if stuck and not restless and optimisation.plain_descent(patient):
        other = _other_optimizer(patient, course)
        if other is not None and other.helps:
            yield replace(other, gain=other.gain + AHEAD)
            return
    down = (0.1, 0.01, 1e-3, 1e-4) if diverges(course.base) else (0.1, 0.01)
    up = _up_to_the_usual(patient) if stuck else (10.0, 100.0, 1000.0)
    found = None
    for factors in (down, up) if restless else (up, down):
        found = _best_rate(patient, course, factors)
        if found is not None and found.helps:
            yield found
            return
    if stuck and not (not restless and optimisation.plain_descent(patient)):
        other = _other_optimizer(patient, course)
        if other is not None:
            yield replace(other, gain=other.gain - AHEAD)


def _up_to_the_usual(patient: Patient) -> tuple[float, ...]:
    """The factors for a training that stands still: from far below, at once to the usual rate."""
    rate = optimisation.rate_of(patient)
    usual = usual_rate(optimisation.optimizer_of(patient))
    power = round(math.log10(usual / rate)) if rate > 0 else 0
    return (10.0**power, 10.0 ** (power + 1)) if power >= 3 else (10.0, 100.0, 1000.0)


def _other_optimizer(patient: Patient, course: Course) -> Tried | None:
    finding = optimisation.other_optimizer(patient)
    if finding is None or not patient.affords():
        return None
    return attempt(patient, course, finding)


def _best_rate(patient: Patient, course: Course, factors: tuple[float, ...]) -> Tried | None:
    """The rate that does best in one direction; the next is tried while the last one helped."""
    best: Tried | None = None
    found = 1.0
    for factor in factors:
        if not patient.affords():
            break
        tried = _at(patient, course, factor)
        if best is None or (tried.helps and better(tried.outcome, best.outcome)):
            best, found = tried, factor
        elif best.helps or (factor > 1 and not better(tried.outcome, course.base)):
            break
    if best is None or not best.helps or best.outcome.verdict.error < GOOD:
        return best
    return _refined(patient, course, best, found)


def _refined(patient: Patient, course: Course, best: Tried, factor: float) -> Tried:
    """The best of the rate found and of those half a power of ten beside it."""
    for side in BESIDE:
        if not patient.affords():
            break
        tried = _at(patient, course, factor * side)
        if tried.helps and closer(tried.outcome, best.outcome):
            return tried
    return best


def _at(patient: Patient, course: Course, factor: float) -> Tried:
    """A trial of this factor on the rate."""
    if factor < 1:
        return attempt(patient, course, optimisation.too_high(patient, factor))
    tried = attempt(patient, course, optimisation.too_low(patient, factor))
    if not tried.helps:
        return tried
    further = optimisation.goes_further(patient, tried.outcome, course.base, factor)
    return replace(tried, helps=further)


def with_other_rate(
    patient: Patient, course: Course, change: Remedy, outcome: Outcome
) -> tuple[Remedy, Outcome]:
    """A sound remedy that does harm at this rate, with a rate at which it does none.

    Where the fault made the gradient weak or strong, the rate was chosen around it.
    """
    rate = optimisation.rate_of(patient)
    for factor in AROUND:
        if not patient.affords():
            break
        both = together(change, rate_times(factor, rate))
        there = patient.arm(*course.remedies, both)
        if better(there, outcome) and there.verdict.error <= course.base.verdict.error:
            return both, there
    return change, outcome


def retune(patient: Patient, course: Course) -> None:
    """Set a rate again that was found for the sick network, now that more of it is healed."""
    found = rate_remedied(course)
    healed = [f for f in (*course.certain, *course.proven) if f.change is not None]
    if found is None or len(healed) < 2 or course.base.verdict.error < GOOD:
        return
    assert found.change is not None, "asked for"
    old = optimisation.rate_of(patient)
    rate = float(found.change.settings["optimizer.lr"])
    best: tuple[float, Outcome] | None = None
    for factor in AGAIN:
        if not patient.affords():
            break
        outcome = patient.arm(*course.remedies, rate_times(factor, rate))
        if closer(outcome, course.base if best is None else best[1]):
            best = factor, outcome
        elif best is not None:
            break
    if best is None:
        return
    factor, course.base = best
    course.remedies.append(rate_times(factor, rate))
    change = rate_times(factor * rate / old, old)
    for findings in (course.certain, course.proven):
        findings[:] = [replace(f, change=change) if f is found else f for f in findings]


def rate_remedied(course: Course) -> Finding | None:
    """The finding whose remedy set the rate, if one did."""
    for finding in (*course.certain, *course.proven):
        change, trial = finding.change, finding.trial
        if change is None or trial is None or trial.harms:
            continue
        if finding.cause in ("lr_too_high", "lr_too_low") and "optimizer.lr" in change.settings:
            return finding
    return None
