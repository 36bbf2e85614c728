"""Tests of the second try at a training that is over before anything could show."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from leadline.doctor.at_length import TIMES, try_at_length
from leadline.doctor.comparison import learns
from leadline.doctor.course import Course
from leadline.doctor.patient import Patient
from leadline.doctor.procedure import run
from leadline.doctor.remedies.layers import other_activations
from leadline.doctor.remedies.optimisation import rate_times
from leadline.doctor.remedy import together
from leadline.doctor.suspicion import suspect
from leadline.training.setup import Setup

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(256, 8, generator=GENERATOR)
CLASSES = INPUTS[:, :4].argmax(dim=1)


def network(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 4)
    )


def short(activation: type[nn.Module] = nn.ReLU, *, lr: float = 0.02, **changes: Any) -> Patient:
    """A training of a few steps of plain gradient descent."""
    given: dict[str, Any] = {
        "model": lambda: network(activation),
        "batches": list(zip(INPUTS.split(64), CLASSES.split(64), strict=True)),
        "loss": functional.cross_entropy,
        "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=lr),
        "epochs": 2,
    }
    return Patient(Setup(**(given | changes)), seconds=20)


def course_of(patient: Patient, *ruled_out: Any) -> Course:
    return Course(
        base=patient.arm(),
        certain=[],
        proven=[],
        ruled_out=list(ruled_out),
        untried=[],
    )


def healed(patient: Patient, course: Course) -> Setup:
    return together(*course.remedies)(patient.setup)


def test_more_epochs_are_the_remedy_where_they_alone_help() -> None:
    patient = short(lr=0.1, epochs=2)
    course = course_of(patient)
    assert not learns(course.base)
    try_at_length(patient, course)
    (finding,) = course.proven
    assert finding.cause == "epochs_too_few" and finding.proven
    assert healed(patient, course).epochs == TIMES * 2
    assert finding.trial is not None and finding.trial.steps == TIMES * 8
    assert learns(course.base)


def test_what_was_ruled_out_is_tried_again_beside_them() -> None:
    patient = short(nn.Sigmoid, lr=0.05, epochs=2)
    change = other_activations(["1", "3"], "relu", was="Sigmoid")
    slower = suspect("lr_too_high", "", change=rate_times(0.1, 0.05))
    sigmoid = suspect("hidden_activation_wrong", "the gradient vanishes", change=change)
    course = course_of(patient, slower, sigmoid)
    try_at_length(patient, course)
    (finding,) = course.proven
    assert finding.cause == "hidden_activation_wrong" and finding.severity == "error"
    assert healed(patient, course).epochs == TIMES * 2
    assert isinstance(healed(patient, course).model()[1], nn.ReLU)  # type: ignore[index]
    assert course.ruled_out == [slower]
    assert finding.change is not None and "20 epochs instead of 2" in finding.change.title


def test_where_nothing_helps_the_course_stays_as_it_was() -> None:
    patient = short(lr=1e-6)
    slower = suspect("lr_too_high", "", change=rate_times(0.1, 1e-6))
    course = course_of(patient, slower)
    base = course.base
    try_at_length(patient, course)
    assert (course.proven, course.ruled_out) == ([], [slower])
    assert course.base is base and course.remedies == []


@pytest.mark.parametrize("why", ["not the whole", "no allowance"])
def test_it_is_not_tried_of_a_long_training_or_without_an_allowance(why: str) -> None:
    patient = short(lr=0.1, epochs=4)
    course = course_of(patient)
    if why == "no allowance":
        patient.allowance.seconds = 0.0
    else:
        patient.total_steps = 100 * patient.steps
    spent = patient.allowance.spent_steps
    try_at_length(patient, course)
    assert course.proven == [] and patient.allowance.spent_steps == spent


def test_a_training_of_a_few_steps_is_told_to_be_too_short_by_the_procedure() -> None:
    patient = short(lr=0.05, epochs=1)
    course, sick = run(patient)
    assert not learns(sick)
    assert course.proven, "rates, optimizers or length"
