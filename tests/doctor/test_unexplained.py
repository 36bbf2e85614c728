"""Tests of what is said of a training that learns nothing, when no cause was proven."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.course import Course
from leadline.doctor.finding import Finding
from leadline.doctor.patient import Patient
from leadline.doctor.remedy import Remedy
from leadline.doctor.suspicion import suspect
from leadline.doctor.trial import Arm, Trial
from leadline.doctor.unexplained import still_suspected, where_to_look
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
    return list(where_to_look(patient))


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
    assert list(where_to_look(patient)) == []
    assert patient.allowance.spent_steps <= steps


# -------------------------------------------------------------------------------- still suspected


def with_trial(cause: str, without: float, treated: float, ended: str = "") -> Finding:
    arms = [
        Arm(losses=(1.0,), error=error, surprise=error, ended=said)
        for error, said in ((without, ""), (treated, ended))
    ]
    trial = Trial(
        remedy="", steps=1, without=arms[0], treated=arms[1], measured="error", helps=False
    )
    found = suspect(cause, "a softmax inside the network", change=Remedy(title="another"))
    return replace(found, trial=trial)


@pytest.fixture
def patient() -> Patient:
    setup = Setup(
        model=network,
        batches=list(zip(INPUTS.split(32), CLASSES.split(32), strict=True)),
        loss=functional.cross_entropy,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
        epochs=1000,
    )
    patient = Patient(setup, steps=600)
    assert not patient.whole
    return patient


@pytest.mark.parametrize(
    ("finding", "kept"),
    [
        (with_trial("norm_missing", 1.0, 1.01), True),
        (with_trial("norm_missing", 1.0, 0.85), False),  # it learned, and too little: ruled out
        (with_trial("norm_missing", 0.8, 1.0), False),  # what learns without it needs no remedy
        (with_trial("norm_missing", 1.0, 1.0, "loss nan"), False),
        (with_trial("lr_too_low", 1.0, 1.0), False),  # no matter of the structure
    ],
)
def test_a_trial_too_short_for_either_arm_to_learn_rules_nothing_out(
    patient: Patient, finding: Finding, kept: bool
) -> None:
    course = Course(
        base=patient.arm(),
        certain=[],
        proven=[],
        ruled_out=[finding],
        untried=[],
    )
    found = still_suspected(patient, course, {"norm_missing"})
    assert [f.cause for f in found] == ["norm_missing"] * kept
    assert all(f.severity == "warning" and not f.proven for f in found)
    assert (finding in course.ruled_out) is not kept
    assert any("suspected and not proven" in limit for limit in patient.limits) is kept
    patient.total_steps = patient.steps
    course.ruled_out = [finding]
    assert still_suspected(patient, course, {"norm_missing"}) == [], "run whole: ruled out"
