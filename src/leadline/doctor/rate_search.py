"""The rate search: a range test, down where a training is restless, up where it is slow.

Steps of the range are powers of ten, and the next is tried while the last one helped. A rate that
is only faster does not count (`comparison.hurries`), nor one that the training as it is would catch
up with before its end (`optimisation.goes_further`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from leadline.doctor.causes.suspected import optimisation
from leadline.doctor.comparison import better, diverges, learns
from leadline.doctor.course import Course, Tried, attempt
from leadline.doctor.patient import Patient
from leadline.doctor.prescription import usual_rate

AHEAD = 0.15
"""Part of the error that a rate has to gain more before it is named first."""


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
    for factor in factors:
        if not patient.affords():
            return best
        if factor < 1:
            finding = optimisation.too_high(patient, factor)
        else:
            finding = optimisation.too_low(patient, factor)
        tried = attempt(patient, course, finding)
        if factor > 1 and tried.helps:
            further = optimisation.goes_further(patient, tried.outcome, course.base, factor)
            tried = replace(tried, helps=further)
        if best is None or (tried.helps and better(tried.outcome, best.outcome)):
            best = tried
        elif best.helps or (factor > 1 and not better(tried.outcome, course.base)):
            return best
    return best
