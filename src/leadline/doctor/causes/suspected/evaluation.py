"""Suspicions about the evaluation: none at all, other inputs than in training, figures that lie."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from leadline.doctor.finding import Evidence, Finding
from leadline.doctor.patient import Patient

APART = 1.0
"""Standard deviations between the means of training and held-out inputs that are too many."""

MOST = 2**20
"""Values that quantiles are taken of, at most."""

STRETCHED = 3.0
"""Ratio of their spreads that is too much."""


def certain(patient: Patient) -> Iterator[Finding]:
    """What the held-out examples show, or that there are none."""
    if patient.setup.validation is None or not patient.held_out:
        yield Finding(
            cause="validation_missing",
            severity="note",
            summary="nothing is held out: whether the network learns more than its examples by "
            "heart cannot be told",
            evidence=(Evidence(quantity="validation batches", measured="none", expected="some"),),
            remedy="hold out a tenth of the training examples and pass them as validation",
        )
        return
    yield from _other_inputs(patient)


def _finite(values: Tensor) -> Tensor:
    return values[values.isfinite()]


def _apart(one: Tensor, other: Tensor) -> float:
    """How many times the larger of two spreads is the smaller; infinity where only one is 0."""
    low, high = sorted((float(one), float(other)))
    return high / low if low > 0 else math.inf


def _middle(values: Tensor) -> Tensor:
    """From where to where nine tenths of the values lie, which no few large ones change."""
    some = values[:: -(-len(values) // MOST)]
    edges = some.quantile(torch.tensor([0.05, 0.95]))
    return edges[1] - edges[0]


def _other_inputs(patient: Patient) -> Iterator[Finding]:
    """Held-out inputs of another mean or spread than those in training."""
    if patient.gathered is None or not patient.held_out:
        return
    shown = patient.gathered[0]
    parts = [x for x, _ in patient.probe.held_out if isinstance(x, Tensor)]
    if not parts or not shown.is_floating_point():
        return
    held = _finite(torch.cat([part.detach().cpu().float().flatten() for part in parts]))
    known = _finite(shown.float().flatten())
    if len(held) < 32 or len(known) < 32:
        return
    spread = max(float(known.std()), float(held.std()))
    distance = abs(float(known.mean() - held.mean())) / spread if spread > 0 else 0.0
    uneven = min(_apart(known.std(), held.std()), _apart(_middle(known), _middle(held)))
    if distance < APART and uneven < STRETCHED:
        return
    yield Finding(
        cause="preprocess_train_test_mismatch",
        severity="error",
        summary="the held-out inputs are scaled otherwise than those in training",
        evidence=(
            Evidence(
                quantity="mean and spread in training",
                measured=f"{float(known.mean()):.3g} and {float(known.std()):.3g}",
                expected="those of the held-out inputs",
            ),
            Evidence(
                quantity="mean and spread held out",
                measured=f"{float(held.mean()):.3g} and {float(held.std()):.3g}",
                expected="those in training",
            ),
        ),
        remedy="use the same preprocessing, with the training set's statistics, for both",
        source="Ng 2018, Machine Learning Yearning, chapter 40",
        proven=True,
    )
