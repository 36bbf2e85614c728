"""Tests of the cadence: the beginning is seen, and after it the budget is kept."""

from __future__ import annotations

import pytest

from leadline.core.errors import ConfigError
from leadline.doctor.cadence import FIRST, PER_HISTORY, UNSEEN, Cadence


class Training:
    """Steps and samples that take given times, on a clock that is told."""

    def __init__(self, *, step: float, sample: float, budget: float = 0.01) -> None:
        self.now, self.step, self.sample = 0.0, step, sample
        self.cadence = Cadence(budget=budget, clock=lambda: self.now)
        self.done = 0
        self.steps: list[int] = []
        self.pauses: dict[int, float] = {}

    def run(self, steps: int) -> None:
        while self.done < steps:
            sampled = self.done + 1 == self.cadence.next
            if sampled:
                self.cadence.begin()
            self.now += self.step + self.pauses.get(self.done + 1, 0.0)
            self.done += 1
            if sampled:
                self.now += self.sample
                self.cadence.end(seconds=self.sample / UNSEEN)
                self.steps.append(self.done)


@pytest.mark.parametrize(("step", "sample"), [(2e-4, 5e-4), (0.1, 0.02), (1.0, 1.0), (1e-4, 1e-7)])
def test_the_first_steps_are_seen_and_then_the_budget_is_kept(step: float, sample: float) -> None:
    training = Training(step=step, sample=sample)
    training.run(20_000)
    assert training.steps[:4] == list(FIRST)
    later = len(training.steps) - len(FIRST)
    assert later * sample <= 0.0101 * 20_000 * step
    allowed = 20_000 * step * 0.01 / sample
    growing = PER_HISTORY * (1 + 5)  # e⁵ × PER_HISTORY steps are more than 20,000
    assert later >= 0.45 * min(allowed, PER_HISTORY)
    assert later <= growing


def test_an_evaluation_or_a_night_in_between_is_not_taken_for_the_steps_time() -> None:
    training = Training(step=1e-3, sample=1e-3)
    training.pauses = {300: 3600.0, 1250: 3600.0}
    training.run(2000)
    assert all(b - a >= 100 for a, b in zip(training.steps[4:], training.steps[5:], strict=False))


def test_samples_that_become_cheaper_come_more_often() -> None:
    training = Training(step=1e-3, sample=1e-2)
    training.run(10_000)
    before = training.steps[-1] - training.steps[-2]
    training.sample = 1e-3
    training.run(30_000)
    after = training.steps[-1] - training.steps[-2]
    assert 1000 <= before <= 1001 and after <= 120


def test_a_million_steps_leave_a_few_thousand_samples() -> None:
    training = Training(step=1.0, sample=0.0)
    training.run(1_000_000)
    assert len(training.steps) < 3000


def test_every_so_many_steps_are_counted_from_the_beginning() -> None:
    cadence = Cadence(every=10)
    steps = []
    for _ in range(4):
        steps.append(cadence.next)
        cadence.begin()
        cadence.end(seconds=1.0)
    assert steps == [1, 10, 20, 30]


def test_a_cadence_that_cannot_be_kept_is_refused_with_all_that_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"2 problems[\s\S]*every must be >= 1[\s\S]*budget"):
        Cadence(every=0, budget=2.0)
