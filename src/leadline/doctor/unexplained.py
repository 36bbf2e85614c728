"""What is said of a training that learns nothing when no cause was proven: where to look.

Three experiments part the network from the data. What a few examples cannot teach is no matter of
the data; what is learned as well without the inputs, or from other labels, does not use them.
"""

from __future__ import annotations

from collections.abc import Iterator

from leadline.core.errors import LeadlineError
from leadline.doctor.experiments import (
    FEW,
    STEPS,
    input_independent,
    overfit_one_batch,
    shuffled_labels,
)
from leadline.doctor.patient import Patient
from leadline.training.setup import Setup

HARDLY = 0.5
"""Error from which on examples are not learned by heart, not even nearly."""

COST = 8 * STEPS
"""Steps that all three take, at most."""


def where_to_look(patient: Patient, setup: Setup) -> Iterator[str]:
    """Sentences on the Setup, one per experiment; none where the allowance does not hold them."""
    if patient.problem.kind == "unknown":
        return
    if not patient.allowance.affords(COST, COST * patient.step_seconds):
        return
    try:
        yield from _by_heart(patient, setup)
        yield from _without(patient, setup)
    except (LeadlineError, RuntimeError, ValueError, TypeError, IndexError) as error:
        yield f"what it can learn could not be tried: {error}"


def _by_heart(patient: Patient, setup: Setup) -> Iterator[str]:
    found = overfit_one_batch(patient, setup=setup)
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


def _without(patient: Patient, setup: Setup) -> Iterator[str]:
    blind = input_independent(patient, setup=setup)
    if not blind.uses_it:
        yield (
            "it goes as well with all inputs alike: they tell it nothing, or do not reach the "
            "answers"
        )
        return
    other = shuffled_labels(patient, setup=setup)
    if not other.uses_it:
        yield (
            "it goes as well with the labels in another order: check that inputs and labels are "
            "read in the same order"
        )
