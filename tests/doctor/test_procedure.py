"""Tests of the procedure: what is certain first, each cause once, and nothing beyond the budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from leadline.doctor.finding import Finding
from leadline.doctor.patient import Patient
from leadline.doctor.procedure import run
from leadline.training.setup import Setup

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(512, 8, generator=GENERATOR)
CLASSES = (INPUTS[:, :4] + 0.1 * torch.randn(512, 4, generator=GENERATOR)).argmax(dim=1)
HELD = torch.randn(128, 8, generator=GENERATOR)


def network(*ending: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4), *(make() for make in ending)
    )


def setup_of(targets: Tensor = CLASSES, *, inputs: Tensor = INPUTS, **changes: Any) -> Setup:
    parts: dict[str, Any] = {
        "model": network(),
        "batches": list(zip(inputs.split(32), targets.split(32), strict=True)),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda model: Adam(model.parameters(), lr=1e-2),
        "epochs": 6,
    }
    return Setup(**(parts | changes))


def causes(findings: list[Finding]) -> list[str]:
    return [finding.cause for finding in findings]


# ----------------------------------------------------------------------------------- what is found


def test_a_healthy_training_has_no_cause() -> None:
    course, sick = run(Patient(setup_of(), seconds=10))
    assert causes(course.certain) == ["validation_missing"]
    assert course.proven == []
    assert course.base is sick and sick.verdict.error < 0.2


SICK: dict[str, dict[str, Any]] = {
    "double_softmax": {"model": network(lambda: nn.Softmax(dim=1))},
    "lr_too_low": {"optimizer": lambda model: Adam(model.parameters(), lr=1e-7)},
    "lr_too_high": {"optimizer": lambda model: Adam(model.parameters(), lr=30.0)},
    "optimizer_missing_params": {
        "model": lambda: nn.Sequential(*network()(), nn.Linear(4, 4)),
        "optimizer": lambda model: (
            SGD([next(iter(model[4:].parameters()))], lr=0.1)
            if len(model) > 4
            else SGD(model[3].parameters(), lr=0.1)
        ),
    },
    "gradient_sign_flipped": {
        "optimizer": lambda model: SGD(model.parameters(), lr=0.05, maximize=True)
    },
    "labels_shifted": {"targets": CLASSES + 1},
}


@pytest.mark.parametrize("cause", SICK)
def test_the_cause_is_found_proven_and_healed(cause: str) -> None:
    patient = Patient(setup_of(**SICK[cause]), seconds=15)
    course, sick = run(patient)
    found = {f.cause: f for f in [*course.certain, *course.proven]}
    assert cause in found
    finding = found[cause]
    assert finding.proven and finding.change is not None
    assert finding.severity in ("error", "warning")
    if finding.trial is not None:
        assert finding.trial.without.error == pytest.approx(sick.verdict.error, nan_ok=True)


def test_a_remedy_without_which_no_step_is_made_is_proven_by_one_that_learns() -> None:
    yes = (INPUTS[:, :1] > 0).float()
    setup = setup_of(
        yes,
        model=lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1)),
        loss=nn.BCELoss(),
    )
    course, sick = run(Patient(setup, seconds=10))
    wrong = course.certain[0]
    assert (wrong.cause, wrong.proven) == ("output_activation_wrong", True)
    assert sick.crashed and sick.steps == 0
    assert wrong.trial is not None and wrong.trial.helps
    assert course.base.verdict.error < 0.2


def test_each_cause_is_told_once() -> None:
    inputs = INPUTS * 300 + 1000
    setup = setup_of(inputs=inputs, model=network(lambda: nn.Softmax(dim=1)))
    course, _ = run(Patient(setup, seconds=10))
    told = causes([*course.certain, *course.proven])
    assert len(told) == len(set(told))


def test_the_healed_setup_is_the_one_with_every_adopted_remedy() -> None:
    patient = Patient(setup_of(model=network(lambda: nn.Softmax(dim=1))), seconds=10)
    course, sick = run(patient)
    again = patient.arm(*course.remedies)
    assert again.losses == course.base.losses
    assert again.verdict.error < sick.verdict.error


# -------------------------------------------------------------------------------------- the budget


@pytest.mark.parametrize("steps", [1, 100, 400])
def test_the_steps_of_the_allowance_are_kept(steps: int) -> None:
    """But for the training as it is, which is always run, and the first five."""
    setup = setup_of(epochs=500, optimizer=lambda model: Adam(model.parameters(), lr=1e-5))
    patient = Patient(setup, steps=steps)
    run(patient)
    assert patient.allowance.spent_steps <= max(steps, 5 + patient.steps)


def test_what_could_not_be_tried_is_kept_as_untried() -> None:
    sigmoids = lambda: nn.Sequential(  # noqa: E731 - one factory
        nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 4)
    )
    setup = setup_of(
        model=sigmoids, epochs=500, optimizer=lambda model: SGD(model.parameters(), lr=1e-2)
    )
    course, _ = run(Patient(setup, steps=1))
    assert "hidden_activation_wrong" in causes(course.untried)
    assert course.proven == [] and course.ruled_out == []


def test_a_warning_whose_remedy_does_harm_becomes_a_note() -> None:
    """Squared errors summed over 32 examples at a rate that was chosen for the sum."""
    targets = INPUTS @ torch.randn(8, 1, generator=torch.Generator().manual_seed(1))
    setup = setup_of(
        targets,
        model=lambda: nn.Linear(8, 1),
        loss=nn.MSELoss(reduction="sum"),
        optimizer=lambda model: SGD(model.parameters(), lr=2e-3),
    )
    course, _ = run(Patient(setup, seconds=10))
    summed = next(f for f in course.certain if f.cause == "loss_reduction_wrong")
    assert summed.trial is not None and summed.trial.gain < -0.25
    assert summed.severity == "note" and not summed.proven


def test_a_sound_remedy_that_the_rate_was_chosen_around_brings_its_own_rate() -> None:
    """A softmax too many makes the gradient weak; at the rate that makes up for it, logits leap."""
    sick = setup_of(
        model=network(lambda: nn.Softmax(dim=1)),
        optimizer=lambda model: SGD(model.parameters(), lr=20.0, momentum=0.9),
    )
    course, _ = run(Patient(sick, seconds=20))
    (found,) = [f for f in course.certain if f.cause == "double_softmax"]
    assert found.trial is not None and found.change is not None
    assert not found.trial.harms
    assert "a learning rate of" in found.trial.remedy
    rate = found.change(sick).optimizer(nn.Linear(1, 1)).param_groups[0]["lr"]
    assert rate < 20 and found.change.settings == {"optimizer.lr": rate}
    assert any("lr=20" in line for line in found.change.lines)
