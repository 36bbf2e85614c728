"""A training that is over before anything could show: all is tried once more, ten times as long.

A training of a few dozen steps learns nothing with a remedy or without. Where nothing was proven
and the allowance holds it, the training itself is run longer, and what was ruled out beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from leadline.doctor.arm import Outcome
from leadline.doctor.causes.suspected import optimisation
from leadline.doctor.comparison import better, trial_of
from leadline.doctor.course import JUDGES, Course, Tried, adopt
from leadline.doctor.finding import Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedy import together

TIMES = 10
"""Times the length of the training."""


def try_at_length(patient: Patient, course: Course) -> None:
    """Adopt more epochs where they alone help, else what was ruled out and helps beside them."""
    if not patient.whole or not patient.affords(2 * TIMES):
        return
    short = course.base
    longer = patient.arm(*course.remedies, times=TIMES)
    finding = optimisation.epochs_too_few(patient, TIMES)
    if better(longer, short):
        adopt(course, _tried(patient, finding, course, longer))
        return
    course.base = longer
    helped = max(_again(patient, course), key=lambda tried: tried.gain, default=None)
    course.base = longer if helped is not None else short
    if helped is not None:
        course.ruled_out = [f for f in course.ruled_out if f.cause != helped.finding.cause]
        adopt(course, helped)


def _again(patient: Patient, course: Course) -> Iterator[Tried]:
    epochs = optimisation.epochs_too_few(patient, TIMES).change
    for finding in course.ruled_out:
        if finding.change is None or epochs is None or not patient.affords(TIMES):
            continue
        outcome = patient.arm(*course.remedies, finding.change, times=TIMES)
        if JUDGES.get(finding.cause, better)(outcome, course.base):
            both = replace(finding, change=together(finding.change, epochs))
            yield _tried(patient, both, course, outcome)


def _tried(patient: Patient, finding: Finding, course: Course, outcome: Outcome) -> Tried:
    assert finding.change is not None, "it was tried"
    trial = trial_of(
        course.base,
        outcome,
        remedy=finding.change.title,
        measured=patient.problem.measured,
        helps=True,
    )
    return Tried(
        finding=replace(finding, trial=trial), outcome=outcome, helps=True, gain=trial.gain
    )
