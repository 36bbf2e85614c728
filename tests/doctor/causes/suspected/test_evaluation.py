"""Tests of the suspicions about the evaluation: none at all, or other inputs than in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.doctor.causes.suspected.evaluation import certain

Patients = Callable[..., Any]
INPUTS = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
HELD = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
CLASSES = INPUTS[:, :4].argmax(dim=1)


def linear() -> nn.Module:
    return nn.Linear(8, 4)


def validated(patient_for: Patients, shown: Tensor, held: Tensor) -> Any:
    validation = [(held, torch.zeros(len(held), dtype=torch.long))]
    return patient_for(linear, (shown, CLASSES), validation=validation)


def test_a_training_that_holds_nothing_out_is_noted(patient_for: Patients) -> None:
    (finding,) = certain(patient_for(linear, (INPUTS, CLASSES)))
    assert (finding.cause, finding.severity) == ("validation_missing", "note")


@pytest.mark.parametrize(
    ("shown", "held"),
    [
        (INPUTS, HELD),
        (INPUTS * 0.3 + 0.5, HELD * 0.3 + 0.5),
        (INPUTS, HELD * 2),
        (INPUTS, HELD + 0.5),
        (INPUTS, HELD[:3]),
    ],
)
def test_inputs_alike_in_both_parts_are_nothing(
    patient_for: Patients, shown: Tensor, held: Tensor
) -> None:
    assert not list(certain(validated(patient_for, shown, held)))


@pytest.mark.parametrize(
    ("shown", "held"),
    [
        ((INPUTS - 2) / 0.3, HELD),  # standardised in training only
        (INPUTS, HELD * 255),
        (INPUTS * 255, HELD),
        (INPUTS, HELD + 3),
    ],
)
def test_held_out_inputs_of_another_scale_are_an_error(
    patient_for: Patients, shown: Tensor, held: Tensor
) -> None:
    (finding,) = certain(validated(patient_for, shown, held))
    assert finding.cause == "preprocess_train_test_mismatch"
    assert (finding.severity, finding.proven) == ("error", True)
    said = [f"{float(x.mean()):.3g} and {float(x.std()):.3g}" for x in (shown, held)]
    assert [entry.measured for entry in finding.evidence] == said


def test_validation_that_holds_nothing_is_none(patient_for: Patients) -> None:
    patient = patient_for(linear, (INPUTS, CLASSES), validation=[])
    assert [f.cause for f in certain(patient)] == ["validation_missing"]
    assert "no validation batch could be had: batches that are empty" in patient.limits


def test_tokens_have_no_scale(patient_for: Patients) -> None:
    tokens = torch.randint(0, 9, (256, 5))

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(900, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.words(x).mean(dim=1))

    patient = patient_for(Bag, (tokens, CLASSES), validation=[(tokens[:64] + 800, CLASSES[:64])])
    assert not list(certain(patient))


def test_numbers_that_are_none_are_no_scale(patient_for: Patients) -> None:
    hole, end = INPUTS.clone(), HELD.clone()
    hole[0, 0], end[0, 0] = torch.nan, torch.inf
    assert not list(certain(validated(patient_for, hole, HELD)))
    assert not list(certain(validated(patient_for, INPUTS, end)))
    (finding,) = certain(validated(patient_for, hole, HELD * 255))
    assert finding.cause == "preprocess_train_test_mismatch"


@pytest.mark.parametrize("seed", range(10))
def test_a_few_very_large_numbers_are_no_other_scale(patient_for: Patients, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = (3 * torch.randn(320, 8, generator=generator)).exp()
    rows = (rows - rows[:256].mean()) / rows[:256].std()
    assert not list(certain(validated(patient_for, rows[:256], rows[256:])))
