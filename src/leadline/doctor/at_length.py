"""A training that is over before anything could show: all is tried once more, ten times as long.

A training of a few dozen steps learns nothing with a remedy or without. Where nothing was proven
and the allowance holds it, the training itself is run longer, and what was ruled out beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from leadline.doctor.causes.suspected.generalisation import stops_early
from leadline.doctor.comparison import better
from leadline.doctor.course import Course, Tried, adopt, attempt, with_trial
from leadline.doctor.patient import Patient
from leadline.doctor.remedies.optimisation import epochs_times
from leadline.doctor.remedy import together

TIMES = 10
"""Times the length of the training."""


def try_at_length(patient: Patient, course: Course) -> None:
    """Adopt more epochs where they alone help, else what was ruled out and helps beside them."""
    if not patient.whole or not patient.affords(2 * TIMES):
        return
    short = course.base
    longer = patient.arm(*course.remedies, times=TIMES)
    if better(longer, short):
        finding = stops_early(patient, short, longer, times=TIMES, factor=TIMES)
        adopt(course, with_trial(patient, course, finding, longer, helps=True))
        return
    course.base = longer
    helped = max(_again(patient, course), key=lambda entry: entry.gain, default=None)
    if helped is None:
        course.base = short
        return
    course.ruled_out = [f for f in course.ruled_out if f.cause != helped.finding.cause]
    adopt(course, helped)


def _again(patient: Patient, course: Course) -> Iterator[Tried]:
    """What was ruled out and helps a training of ten times the epochs, with these in its remedy."""
    epochs = epochs_times(TIMES, patient.setup.epochs)
    for finding in course.ruled_out:
        if finding.change is None or not patient.affords(TIMES):
            continue
        found = attempt(patient, course, finding, times=TIMES)
        if found.helps:
            both = replace(found.finding, change=together(finding.change, epochs))
            yield replace(found, finding=both)
