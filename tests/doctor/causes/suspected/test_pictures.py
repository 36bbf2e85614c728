"""Tests of held-out pictures that were prepared otherwise than those in training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.doctor.causes.suspected.pictures import WAYS, certain
from leadline.doctor.patient import Patient


@pytest.fixture
def pictures(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Digits in colour: yellow, on a ground that is darker at the bottom."""
    grey = digits[0].reshape(-1, 1, 8, 8)
    colour = torch.tensor([0.9, 0.7, 0.2]).view(1, 3, 1, 1)
    return grey * colour + 0.1 * torch.linspace(1, 0, 8).view(1, 1, 8, 1), digits[1]


def held_out(pictures: tuple[Tensor, Tensor], way: Any) -> list[tuple[Tensor, Tensor]]:
    return [(way(pictures[0][700:]), pictures[1][700:])]


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


@pytest.mark.parametrize("name", list(WAYS))
def test_each_way_to_turn_pictures_is_named_and_turned_back(
    patient_for: Any, named: Any, pictures: Any, name: str
) -> None:
    train = pictures[0][:640], pictures[1][:640]
    patient = patient_for(linear, train, validation=held_out(pictures, WAYS[name]))
    assert named(certain(patient)) == ["error preprocess_train_test_mismatch"]
    (finding,) = certain(patient)
    assert name in finding.summary
    assert not list(certain(Patient(finding.change(patient.setup), seconds=2)))


def test_pictures_of_one_kind_are_healthy(patient_for: Any, pictures: Any) -> None:
    train = pictures[0][:640], pictures[1][:640]
    same = held_out(pictures, lambda x: x)
    assert not list(certain(patient_for(linear, train, validation=same)))


def test_other_classes_held_out_are_not_taken_for_turned_pictures(
    patient_for: Any, pictures: Any
) -> None:
    train = pictures[0][:640], pictures[1][:640]
    ones = pictures[1] == 1
    other = [(pictures[0][ones], pictures[1][ones])]
    assert not list(certain(patient_for(linear, train, validation=other)))
