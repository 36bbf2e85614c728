"""What is said of a training that learns nothing when no cause was proven: where to look.

A trial in which neither arm learned anything rules nothing out where it was shorter than the
training: what was suspected of the network's structure stays suspected.

Three experiments part the network from the data. What a few examples cannot teach is no matter of
the data; what is learned as well without the inputs, or from other labels, does not use them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from leadline.core.errors import LeadlineError
from leadline.doctor.course import Course
from leadline.doctor.experiments import (
    FEW,
    STEPS,
    input_independent,
    overfit_one_batch,
    shuffled_labels,
)
from leadline.doctor.finding import Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedy import Remedy

HARDLY = 0.5
"""Error from which on examples are not learned by heart, not even nearly."""

NOTHING = 0.9
"""Error of an arm that learned next to nothing."""

COST = 8 * STEPS
"""Steps that all three take, at most."""


def still_suspected(patient: Patient, course: Course, among: Collection[str]) -> list[Finding]:
    """The suspicions among these causes that were tried for too short a time to tell.

    They are taken out of what was ruled out, and come as warnings that are not proven.
    """
    if patient.whole:
        return []
    open_ = [f for f in course.ruled_out if f.cause in among and _learned_nothing(f)]
    course.ruled_out = [f for f in course.ruled_out if f not in open_]
    patient.limits += [
        f"{f.cause} is suspected and not proven: in {patient.steps} steps nothing was learned with "
        "its remedy or without; give it more seconds"
        for f in open_
    ]
    return [replace(f, severity="warning") for f in open_]


def _learned_nothing(finding: Finding) -> bool:
    trial = finding.trial
    if trial is None or trial.treated.ended:
        return False
    return min(trial.without.error, trial.treated.error) > NOTHING


def where_to_look(patient: Patient, *remedies: Remedy) -> Iterator[str]:
    """Sentences on the Setup with these remedies, one per experiment; none beyond the allowance."""
    if patient.problem.kind == "unknown":
        return
    if not patient.allowance.affords(COST, COST * patient.step_seconds):
        return
    try:
        yield from _by_heart(patient, *remedies)
        yield from _without(patient, *remedies)
    except (LeadlineError, RuntimeError, ValueError, TypeError, IndexError) as error:
        yield f"what it can learn could not be tried: {error}"


def _by_heart(patient: Patient, *remedies: Remedy) -> Iterator[str]:
    found = overfit_one_batch(patient, *remedies)
    if found.learned:
        yield (
            f"{FEW} examples alone are learned by heart (error {found.error:.2g} at a rate of "
            f"{found.rate:.3g}): network, loss and gradient work together, so look at the data, "
            "the rate, and how long it trains"
        )
    elif found.error > HARDLY:
        yield (
            f"not even {FEW} examples are learned by heart (error {found.error:.2g} at the best of "
            "several rates, and with Adam): look at the network, the loss and the targets' shape"
        )


def _without(patient: Patient, *remedies: Remedy) -> Iterator[str]:
    blind = input_independent(patient, *remedies)
    if not blind.uses_it:
        yield (
            "it goes as well with all inputs alike: they tell it nothing, or do not reach the "
            "answers"
        )
        return
    other = shuffled_labels(patient, *remedies)
    if not other.uses_it:
        yield (
            "it goes as well with the labels in another order: check that inputs and labels are "
            "read in the same order"
        )
