"""Tests of doctor/rate_search: which rate is found for whom, and for whom none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from leadline.doctor.course import Course, Tried
from leadline.doctor.patient import Patient
from leadline.doctor.rate_search import try_rates
from leadline.training.setup import Setup


def line(optimizer: Callable[[nn.Module], Optimizer]) -> Setup:
    """y = 3 x from 64 points: the loss has the curvature 2 mean x^2 = 0.7."""
    x = torch.linspace(-1, 1, 64)[:, None]
    return Setup(
        model=lambda: nn.Linear(1, 1, bias=False),
        batches=[(x, 3 * x)] * 60,
        loss=nn.functional.mse_loss,
        optimizer=optimizer,
    )


def search(setup: Setup) -> list[Tried]:
    patient = Patient(setup, seconds=10)
    course = Course(
        setup=setup, base=patient.arm(), certain=[], proven=[], ruled_out=[], untried=[]
    )
    return [tried for tried in try_rates(patient, course) if tried.helps]


@pytest.mark.parametrize(("lr", "cause"), [(10.0, "lr_too_high"), (1e-3, "lr_too_low")])
def test_a_rate_beyond_stability_is_lowered_and_one_that_gets_nowhere_raised(
    lr: float, cause: str
) -> None:
    (found,) = search(line(lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=0.6)))
    assert found.finding.cause == cause
    assert found.outcome.verdict.error < 0.1


def test_a_rate_that_learns_everything_is_left_alone() -> None:
    assert search(line(lambda model: torch.optim.SGD(model.parameters(), lr=0.5))) == []


def test_plain_descent_that_stands_still_at_a_usual_rate_is_tried_with_another_optimizer() -> None:
    """Inputs that come once in 512 examples, as words do: a rate for all is too small for each."""
    x = torch.eye(512)
    y = torch.where(torch.arange(512) % 2 == 0, 1.0, -1.0)[:, None]
    setup = Setup(
        model=lambda: nn.Linear(512, 1, bias=False),
        batches=[(x, y)] * 1000,
        loss=nn.functional.mse_loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.01),
    )
    patient = Patient(setup, steps=20_000, seconds=120)
    course = Course(
        setup=setup, base=patient.arm(), certain=[], proven=[], ruled_out=[], untried=[]
    )
    tried = list(try_rates(patient, course))
    assert course.base.verdict.error > 0.9
    assert [(entry.finding.cause, entry.helps) for entry in tried] == [("optimizer_wrong", True)]
