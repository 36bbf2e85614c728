"""Tests of doctor/course: how a suspicion is tried, and what adopting one changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from leadline.doctor.arm import Outcome
from leadline.doctor.course import JUDGES, Course, adopt, attempt
from leadline.doctor.finding import Evidence
from leadline.doctor.patient import Patient
from leadline.doctor.problem import Verdict
from leadline.doctor.remedies.batches import Mapped
from leadline.doctor.remedies.optimisation import rate_times
from leadline.doctor.remedy import Remedy, together
from leadline.doctor.suspicion import suspect
from leadline.doctor.vocabulary import family_of
from leadline.training.setup import Setup

Make = Callable[..., Setup]


@pytest.fixture
def line() -> Setup:
    """y = 3 x, by gradient descent at a rate of 1e-4: 40 steps get nowhere."""
    x = torch.linspace(-1, 1, 64)[:, None]
    return Setup(
        model=lambda: nn.Linear(1, 1),
        batches=[(x, 3 * x)] * 40,
        loss=nn.functional.mse_loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-4),
    )


def course_of(patient: Patient) -> Course:
    return Course(
        base=patient.arm(),
        certain=[],
        proven=[],
        ruled_out=[],
        untried=[],
    )


def rate(factor: float, cause: str = "lr_too_low") -> object:
    evidence = Evidence(quantity="lr", measured=1e-4, expected="more")
    return suspect(cause, "slow", evidence, change=rate_times(factor, 1e-4))


def test_a_remedy_that_helps_is_seen_to_and_the_setup_stays_as_it_is(line: Setup) -> None:
    patient = Patient(line, seconds=5)
    course = course_of(patient)
    tried = attempt(patient, course, rate(5e3))  # type: ignore[arg-type]
    assert tried.helps
    assert tried.gain > 0.9
    assert tried.finding.trial is not None
    assert tried.finding.trial.without.error == course.base.verdict.error
    assert course.remedies == []


def test_a_remedy_that_does_nothing_does_not_help(line: Setup) -> None:
    patient = Patient(line, seconds=5)
    tried = attempt(patient, course_of(patient), rate(1.0))  # type: ignore[arg-type]
    assert not tried.helps
    assert tried.gain == 0.0


def test_adopting_makes_the_remedy_part_of_the_setup_and_of_what_is_proven(line: Setup) -> None:
    patient = Patient(line, seconds=5)
    course = course_of(patient)
    tried = attempt(patient, course, rate(5e3))  # type: ignore[arg-type]
    adopt(course, tried)
    (finding,) = course.proven
    assert finding.proven
    assert finding.severity == "error"  # it learned nothing without, and all with it
    assert course.base is tried.outcome
    optimizer = together(*course.remedies)(line).optimizer(nn.Linear(1, 1))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


def test_what_learned_before_is_a_warning(line: Setup) -> None:
    patient = Patient(line, seconds=5)
    course = course_of(patient)
    tried = attempt(patient, course, rate(5e3))  # type: ignore[arg-type]
    learned: Outcome = replace(course.base, training=Verdict(error=0.5, surprise=0.5))
    course.base = learned
    adopt(course, tried)
    assert course.proven[0].severity == "warning"


def test_every_cause_with_a_judge_of_its_own_is_a_word_of_the_vocabulary() -> None:
    assert all(family_of(cause) for cause in JUDGES)


def test_a_suspicion_is_tried_on_the_setup_as_healed_so_far(line: Setup) -> None:
    patient = Patient(line, seconds=5)
    course = course_of(patient)
    course.remedies.append(rate_times(100.0, 1e-4))
    tried = attempt(patient, course, rate(10.0))  # type: ignore[arg-type]
    by_hand = rate_times(1000.0, 1e-4)
    assert tried.outcome.losses == pytest.approx(patient.arm(by_hand).losses)


def test_a_remedy_of_the_batches_is_still_there_when_the_next_one_is_tried(line: Setup) -> None:
    """A remedy that takes the place of the batches works on those of the arm."""
    doubled = Remedy(
        title="twice the targets",
        apply=lambda setup: replace(
            setup, batches=Mapped(setup.batches, lambda x, y: (x, 2 * y)), epochs=2
        ),
    )
    patient = Patient(line, seconds=5)
    course = course_of(patient)
    course.remedies.append(doubled)
    tried = attempt(patient, course, rate(5e3))  # type: ignore[arg-type]
    twice = [(x, 2 * y) for x, y in line.batches]
    by_hand = Patient(replace(line, batches=twice, epochs=2), seconds=5)
    wanted = by_hand.arm(rate_times(5e3, 1e-4), times=80 / by_hand.steps)
    assert tried.outcome.losses == wanted.losses


def test_adopted_remedies_add_up(line: Setup) -> None:
    patient = Patient(line, seconds=5)
    course = course_of(patient)
    for factor in (10.0, 20.0, 30.0):
        adopt(course, attempt(patient, course, rate(factor)))  # type: ignore[arg-type]
    optimizer = together(*course.remedies)(line).optimizer(nn.Linear(1, 1))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.6)
    assert len(course.proven) == 3
