"""Tests of doctor/rate_search: which rate is found for whom, and for whom none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from leadline.doctor.arm import Outcome
from leadline.doctor.course import Course, Tried
from leadline.doctor.patient import Patient
from leadline.doctor.problem import Verdict
from leadline.doctor.rate_search import rate_remedied, retune, try_rates
from leadline.doctor.remedies.optimisation import rate_times
from leadline.doctor.remedy import Remedy, together
from leadline.doctor.suspicion import suspect
from leadline.doctor.trial import Arm, Trial
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
    course = Course(base=patient.arm(), certain=[], proven=[], ruled_out=[], untried=[])
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
    course = Course(base=patient.arm(), certain=[], proven=[], ruled_out=[], untried=[])
    tried = list(try_rates(patient, course))
    assert course.base.verdict.error > 0.9
    assert [(entry.finding.cause, entry.helps) for entry in tried] == [("optimizer_wrong", True)]


# ------------------------------------------------------ arms drawn by hand: an end for each rate

FALLING = tuple(0.97**n for n in range(40))
FLAT = (1.0,) * 40
LEAPING = (*FALLING[:20], 90.0, *FALLING[21:])


def outcome(error: float, losses: tuple[float, ...] = FALLING, *, ended: str = "") -> Outcome:
    verdict = Verdict(error=error, surprise=error)
    return Outcome(
        steps=len(losses),
        losses=losses,
        norms=losses,
        training=verdict,
        held_out=None,
        halfway=None,
        in_training=None,
        ended=ended,
        seconds=0.1,
        model=None,
    )


Ends = Callable[[str, float], Outcome]


def searched(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, *, kind: Any = torch.optim.Adam, lr: float = 1e-2,
    arms: float = math.inf,
) -> tuple[list[tuple[str, float, bool]], list[float]]:  # fmt: skip
    """What the search yields as (cause, rate, helps), and the rates of the arms it ran."""
    data = [(torch.randn(32, 4), torch.arange(32) % 3)] * 8
    setup = Setup(
        model=lambda: nn.Linear(4, 3),
        batches=data,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda model: kind(model.parameters(), lr=lr),
    )
    patient = Patient(setup, seconds=5)
    rates: list[float] = []

    def arm(*remedies: Remedy, times: float = 1.0) -> Outcome:
        optimizer = together(*remedies)(setup).optimizer(nn.Linear(4, 3))
        rates.append(optimizer.param_groups[0]["lr"])
        return ends(type(optimizer).__name__, rates[-1])

    monkeypatch.setattr(patient, "arm", arm)
    monkeypatch.setattr(patient, "affords", lambda count=1.0: len(rates) < arms)
    base = ends(kind.__name__, lr)
    course = Course(base=base, certain=[], proven=[], ruled_out=[], untried=[])
    found = [
        (
            tried.finding.cause,
            tried.finding.change(setup).optimizer(nn.Linear(4, 3)).param_groups[0]["lr"],  # type: ignore[misc]
            tried.helps,
        )
        for tried in try_rates(patient, course)
    ]
    return found, rates


def by_rate(best: float, *, kind: str = "Adam", worst: float = 0.95) -> Ends:
    """Errors that grow with the distance from the best rate, in powers of ten."""

    def end(name: str, rate: float) -> Outcome:
        apart = abs(math.log10(rate / best))
        error = min(worst, 0.02 + 0.4 * apart) if name == kind else worst
        jumps = name == kind and rate > 30 * best
        return outcome(worst if jumps else error, LEAPING if jumps else FALLING)

    return end


def near(rate: float) -> Any:
    return pytest.approx(rate, rel=1e-6)


def test_a_rate_far_too_low_is_raised_as_long_as_that_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, rates = searched(by_rate(1e-2), monkeypatch, lr=1e-4)
    assert found == [("lr_too_low", near(1e-2), True)]
    assert rates == [near(1e-3), near(1e-2), near(1e-1)]


def test_a_restless_training_is_tried_at_lower_rates_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, rates = searched(by_rate(1e-2), monkeypatch, lr=1.0)
    assert found == [("lr_too_high", near(1e-2), True)]
    assert rates[:2] == [near(0.1), near(1e-2)]


def test_a_training_that_does_well_is_only_asked_the_next_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, rates = searched(by_rate(1e-2), monkeypatch, lr=1e-2)
    assert found == []
    assert rates == [near(0.1), near(1.0), near(1e-3), near(1e-4)]


def test_one_that_breaks_off_is_followed_far_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(name: str, rate: float) -> Outcome:
        broken = rate > 2e-4
        return outcome(0.1, FALLING, ended="loss nan at step 3" if broken else "")

    found, rates = searched(end, monkeypatch, lr=1.0)
    assert found == [("lr_too_high", near(1e-4), True)]
    assert len(rates) == 4


def test_where_a_rate_is_only_faster_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the rate leaves an error of 0.3, ten times as much 0.2: haste, and no cause."""

    def end(name: str, rate: float) -> Outcome:
        return outcome(max(0.05, 0.3 + 0.1 * math.log10(1e-2 / rate)))

    found, _ = searched(end, monkeypatch, lr=1e-2)
    assert found == []


def test_plain_descent_that_gets_nowhere_is_tried_with_adam_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, rates = searched(
        lambda name, rate: outcome(0.1 if name == "Adam" else 1.0, FLAT),
        monkeypatch,
        kind=torch.optim.SGD,
        lr=1e-2,
    )
    assert found == [("optimizer_wrong", near(1e-3), True)]
    assert len(rates) == 1


def test_another_optimizer_is_the_last_resort_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def momentum(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9)

    momentum.__name__ = "SGD"
    found, rates = searched(
        lambda name, rate: outcome(0.1 if name == "Adam" else 1.0, FLAT),
        monkeypatch,
        kind=momentum,
        lr=1e-2,
    )
    assert found == [("optimizer_wrong", near(1e-3), True)]
    assert len(rates) > 1


def test_it_stops_when_the_allowance_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    found, rates = searched(by_rate(1e-2), monkeypatch, lr=1e-4, arms=1)
    assert len(rates) == 1
    assert found == [("lr_too_low", near(1e-3), True)]


def test_a_rate_that_helps_is_looked_for_in_half_decades(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best rate, 0.03, lies between two powers of ten."""
    found, rates = searched(by_rate(0.03), monkeypatch, lr=1e-4)
    assert found == [("lr_too_low", near(0.03), True)]
    assert rates == [near(1e-3), near(1e-2), near(1e-1), near(3e-2)]


# ---------------------------------------------------------------- a rate of the doctor's, set again


def healed_course(patient: Patient, *, error: float, harmed: bool = False) -> Course:
    """A rate of 1 was lowered to 0.001, and then something else was healed."""
    low = rate_times(1e-3, 1.0)
    arm = Arm(losses=(), error=1.0, surprise=1.0)
    after = Arm(losses=(), error=2.0 if harmed else 0.9, surprise=0.9)
    trial = Trial(remedy="", steps=1, without=arm, treated=after, measured="", helps=True)
    rate = replace(suspect("lr_too_high", "too high", change=low, source=""), trial=trial)
    other = suspect("loss_wrong", "wrong", change=Remedy(title="another"), source="")
    return Course(
        remedies=[low],
        base=outcome(error),
        certain=[rate],
        proven=[other],
        ruled_out=[],
        untried=[],
    )


def again(
    monkeypatch: pytest.MonkeyPatch, ends: Callable[[float], float], *, error: float = 0.6,
    harmed: bool = False,
) -> tuple[Course, list[float]]:  # fmt: skip
    """The course after `retune`, and the rates it tried."""
    patient = Patient(line(lambda model: torch.optim.SGD(model.parameters(), lr=1.0)), seconds=5)
    course = healed_course(patient, error=error, harmed=harmed)
    rates: list[float] = []

    def arm(*remedies: Remedy) -> Outcome:
        treated = together(*remedies)(patient.setup)
        rates.append(treated.optimizer(nn.Linear(1, 1)).param_groups[0]["lr"])
        return outcome(ends(rates[-1]))

    monkeypatch.setattr(patient, "arm", arm)
    retune(patient, course)
    return course, rates


def test_a_rate_of_the_sick_network_is_raised_for_the_healed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    course, rates = again(
        monkeypatch, lambda rate: {1e-2: 0.4, 1e-1: 0.2, 1.0: 0.9}[round(rate, 6)]
    )
    assert rates == [near(1e-2), near(1e-1), near(1.0)]
    assert course.base.verdict.error == 0.2
    change = course.certain[0].change
    assert change is not None and change.settings == {"optimizer.lr": near(0.1)}
    sick = line(lambda m: torch.optim.SGD(m.parameters(), lr=1.0))
    for setup in (together(*course.remedies)(sick), change(sick)):
        assert setup.optimizer(nn.Linear(1, 1)).param_groups[0]["lr"] == near(0.1)


def test_a_rate_that_nothing_betters_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    course, rates = again(monkeypatch, lambda rate: 0.9)
    assert len(rates) == 3
    assert course.certain[0].change is not None
    assert course.certain[0].change.settings == {"optimizer.lr": near(1e-3)}
    assert course.base.verdict.error == 0.6


def test_a_good_training_or_a_rate_that_was_not_set_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert again(monkeypatch, lambda rate: 0.0, error=0.05)[1] == []
    course, rates = again(monkeypatch, lambda rate: 0.0, harmed=True)
    assert rates == [] and rate_remedied(course) is None
