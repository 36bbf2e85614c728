"""Tests of what is said of a training that learns nothing, when no cause was proven."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.patient import Patient
from leadline.doctor.unexplained import where_to_look
from leadline.training.setup import Setup

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(2048, 8, generator=GENERATOR)
CLASSES = INPUTS[:, :4].argmax(dim=1)
NOISE = torch.randint(0, 4, (2048,), generator=GENERATOR)


class Deaf(nn.Module):
    """A network that does not hear its input."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.answer(0 * x)
        return answer


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))


def said(targets: Tensor = CLASSES, **changes: Any) -> list[str]:
    given: dict[str, Any] = {
        "model": network,
        "batches": list(zip(INPUTS.split(32), targets.split(32), strict=True)),
        "loss": functional.cross_entropy,
        "optimizer": lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
        "epochs": 20,
    }
    setup = Setup(**(given | changes))
    patient = Patient(setup, seconds=20)
    return list(where_to_look(patient, setup))


def test_a_network_that_does_not_hear_is_told_from_data_that_say_nothing() -> None:
    by_heart, blind = said(model=Deaf)
    assert by_heart.startswith("not even 16 examples are learned by heart")
    assert "look at the network" in by_heart
    assert blind.startswith("it goes as well with all inputs alike")


def test_labels_that_are_chance_are_learned_by_heart_and_in_any_order() -> None:
    by_heart, *others = said(NOISE)
    assert by_heart.startswith("16 examples alone are learned by heart (error 0 at a rate of 0.01)")
    assert any("labels in another order" in other or "inputs alike" in other for other in others)


def test_of_a_sound_training_nothing_is_missed() -> None:
    (by_heart,) = said()
    assert "look at the data, the rate, and how long it trains" in by_heart


@pytest.mark.parametrize("steps", [60, 400])
def test_nothing_is_tried_beyond_the_allowance(steps: int) -> None:
    setup = Setup(
        model=network,
        batches=list(zip(INPUTS.split(32), CLASSES.split(32), strict=True)),
        loss=functional.cross_entropy,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    )
    patient = Patient(setup, steps=steps)
    assert list(where_to_look(patient, setup)) == []
    assert patient.allowance.spent_steps <= steps
