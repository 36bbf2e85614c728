"""Suspicions about the evaluation: none at all, figures of raw outputs, other modes, a gap."""

from __future__ import annotations

from collections.abc import Iterator

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient


def certain(patient: Patient) -> Iterator[Finding]:
    """A training that nothing is held out from."""
    if patient.setup.validation is None:
        yield Finding(
            cause="validation_missing",
            severity="note",
            summary="nothing is held out: whether the network learns more than its examples by "
            "heart cannot be told",
            evidence=(Evidence(quantity="validation batches", measured="none", expected="some"),),
            remedy="hold out a tenth of the training examples and pass them as validation",
        )


def suspicions(patient: Patient) -> Iterator[Finding]:
    """What the figures of the task say beside the answers themselves."""
    yield from ()
