"""Tests of the comparison of two trainings: chance and haste do not count, what matters does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from leadline.doctor.arm import Outcome
from leadline.doctor.comparison import (
    better,
    closer,
    diverges,
    fairer,
    hurries,
    learns,
    mends,
    neglects,
    quickens,
    starts,
    trial_of,
    wakes,
)
from leadline.doctor.problem import Problem, Verdict, judge

NAN, INF = math.nan, math.inf


def outcome(
    error: float,
    *,
    surprise: float | None = None,
    doubt: float = 0.0,
    balanced: float = NAN,
    ended: str = "",
    losses: tuple[float, ...] = (1.0, 0.5),
) -> Outcome:
    verdict = Verdict(
        error=error,
        surprise=error if surprise is None else surprise,
        doubt=doubt,
        balanced=balanced,
    )
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


@pytest.mark.parametrize(
    ("treated", "without", "answer"),
    [
        (outcome(0.3), outcome(0.9), True),
        (outcome(0.9), outcome(0.3), False),
        (outcome(0.5), outcome(0.5), False),
        (outcome(0.7), outcome(0.85), False),  # a fifth of the error is no good part
        (outcome(0.8, surprise=1.0), outcome(1.0), True),  # unless it begins to learn with it
        (outcome(0.8, surprise=1.0, doubt=0.1), outcome(1.0), False),  # which may be chance
        (outcome(0.7, surprise=1.0), outcome(1.0), True),
        (outcome(0.0), outcome(0.015), False),  # too small to count at all
        (outcome(0.3, surprise=1, doubt=0.2), outcome(0.9, doubt=0.2), False),  # may be chance
        (outcome(0.3, surprise=1, doubt=0.1), outcome(0.9, doubt=0.1), True),
        (outcome(0.95, surprise=0.5), outcome(1.0), True),  # surer, and no worse
        (outcome(1.05, surprise=0.5), outcome(1.0), False),  # surer, and worse
        (outcome(0.3), outcome(0.4, ended="loss nan"), True),
        (outcome(1.6), outcome(0.4, ended="loss nan"), False),
        (outcome(0.0, ended="loss nan"), outcome(1.0), False),
        (outcome(INF), outcome(1.0), False),
        (outcome(0.5), outcome(INF), True),
        (outcome(NAN), outcome(0.5), False),
        (outcome(0.5), outcome(NAN), False),
        (outcome(NAN), outcome(NAN), False),
    ],
)
def test_better_is_clearly_better(treated: Outcome, without: Outcome, answer: bool) -> None:
    assert better(treated, without) is answer


@pytest.mark.parametrize("error", [0.0, 0.1, 0.5, 1.0, 3.0, INF, NAN])
@pytest.mark.parametrize("judge_of", [better, fairer, hurries, mends])
def test_nothing_is_better_than_itself(judge_of: Any, error: float) -> None:
    same = outcome(error, balanced=2 * error)
    assert not judge_of(same, same)


def test_chance_alone_seldom_makes_one_training_better() -> None:
    """400 pairs of models that guess right 60 % of the time, on 200 answers each."""
    problem = Problem(kind="classes", classes=4)

    def guess() -> Outcome:
        wanted = torch.arange(200) % 4
        right = torch.rand(200) < 0.6
        answers = torch.nn.functional.one_hot(torch.where(right, wanted, (wanted + 1) % 4), 4)
        verdict = judge(answers.float(), wanted, problem)
        return outcome(verdict.error, surprise=verdict.surprise, doubt=verdict.doubt)

    found = sum(better(guess(), guess()) for _ in range(400))
    assert found <= 2


@pytest.mark.parametrize(
    ("new", "old", "answer"),
    [
        (0.3, 0.9, True),  # bad as it is, and much better
        (0.6, 0.85, False),  # not much
        (0.75, 1.0, True),  # learns nothing as it is
        (0.1, 0.5, False),  # good as it is: haste
        (0.04, 0.5, True),  # nearly all of it
    ],
)
def test_a_rate_must_do_more_than_hurry(new: float, old: float, answer: bool) -> None:
    assert hurries(outcome(new), outcome(old)) is answer


@pytest.mark.parametrize(
    ("new", "old", "answer"),
    [(0.7, 1.0, True), (0.04, 0.2, True), (0.06, 0.2, False), (0.01, 0.1, False)],
)
def test_smaller_batches_must_take_most_of_the_error(new: float, old: float, answer: bool) -> None:
    assert quickens(outcome(new), outcome(old)) is answer


@pytest.mark.parametrize(
    ("new", "old", "answer"),
    [
        (outcome(0.010), outcome(0.012), True),  # however little
        (outcome(0.011), outcome(0.012), False),
        (outcome(0.2, doubt=0.1), outcome(0.3, doubt=0.1), False),  # may be chance
        (outcome(0.2), outcome(0.1, ended="loss nan"), True),
        (outcome(0.1, ended="loss nan"), outcome(0.2), False),
    ],
)
def test_of_two_rates_the_closer_one_is_preferred(new: Outcome, old: Outcome, answer: bool) -> None:
    assert closer(new, old) is answer


@pytest.mark.parametrize(
    ("new", "old", "doubt", "answer"),
    [
        (0.85, 1.0, 0.0, True),
        (0.85, 1.0, 0.04, False),  # may be chance
        (0.92, 1.1, 0.0, False),  # has not begun
        (0.7, 0.85, 0.0, False),  # had begun before
    ],
)
def test_a_training_starts_when_it_learns_and_did_not(
    new: float, old: float, doubt: float, answer: bool
) -> None:
    assert starts(outcome(new, doubt=doubt), outcome(old, doubt=doubt)) is answer


def test_a_training_that_broke_off_does_not_start() -> None:
    assert not starts(outcome(0.5, ended="loss nan"), outcome(1.0))
    assert not starts(outcome(0.5), outcome(1.0, ended="loss nan"))


@pytest.mark.parametrize(
    ("new", "old", "answer"),
    [(0.2, 0.5, True), (0.3, 0.5, False), (0.1, 0.3, False), (0.04, 0.3, True)],
)
def test_another_network_must_do_more_than_taste(new: float, old: float, answer: bool) -> None:
    assert mends(outcome(new), outcome(old)) is answer


@pytest.mark.parametrize("judge_of", [hurries, mends])
def test_what_heals_a_broken_training_counts(judge_of: Any) -> None:
    assert judge_of(outcome(0.9), outcome(0.5, ended="loss inf"))
    assert not judge_of(outcome(1.5), outcome(0.5, ended="loss inf"))


# ------------------------------------------------------------------------------------------ classes


def test_where_all_classes_are_asked_alike_their_common_error_decides() -> None:
    assert fairer(outcome(0.2, balanced=0.2), outcome(0.6, balanced=0.6))
    assert not fairer(outcome(0.55, balanced=0.5), outcome(0.6, balanced=0.6))
    assert fairer(outcome(0.9, balanced=0.4), outcome(1.0, balanced=1.0)), "had learned nothing"


def test_rare_classes_are_neglected_when_they_are_known_far_worse() -> None:
    assert neglects(outcome(0.1, balanced=0.6))
    assert not neglects(outcome(0.5, balanced=0.6))
    assert neglects(outcome(1.0, surprise=0.1, balanced=1.0)), "no to everyone, yet well ranked"
    assert not neglects(outcome(0.1))
    assert not neglects(outcome(0.1, balanced=0.6, ended="loss nan"))


@pytest.mark.parametrize(
    ("treated", "without", "answer"),
    [
        (outcome(0.2, balanced=0.2), outcome(0.1, balanced=0.8), True),
        (outcome(0.1, balanced=0.7), outcome(0.1, balanced=0.8), False),
        (outcome(0.6, balanced=0.2), outcome(0.7, balanced=0.8), False),  # none was neglected
        (outcome(0.2, balanced=0.2), outcome(0.1, balanced=0.8, doubt=0.3), False),
        (outcome(0.2, balanced=0.2, ended="x"), outcome(0.1, balanced=0.8), False),
        (outcome(0.2), outcome(0.1, balanced=0.8), False),
    ],
)
def test_fairer_is_to_know_neglected_classes_better(
    treated: Outcome, without: Outcome, answer: bool
) -> None:
    assert fairer(treated, without) is answer


# -------------------------------------------------------------------------------------- the course


def test_a_loss_that_ends_far_above_its_start_diverges() -> None:
    up = tuple(2.0**n for n in range(12))
    assert diverges(outcome(1.0, losses=up))
    assert not diverges(outcome(1.0, losses=up[::-1]))
    assert not diverges(outcome(1.0, losses=(1.0, 1.0, 1.0, 50.0, 1.0, 1.0, 1.0)))  # one leap
    assert diverges(outcome(0.1, ended="loss nan"))
    assert diverges(outcome(0.1, losses=()))


def test_a_loss_below_zero_that_falls_does_not_diverge() -> None:
    assert not diverges(outcome(1.0, losses=tuple(-float(n) for n in range(12))))


@pytest.mark.parametrize(
    ("made", "answer"),
    [
        (outcome(0.5), True),
        (outcome(0.95), False),
        (outcome(0.85, doubt=0.1), False),
        (outcome(0.1, ended="loss nan"), False),
        (outcome(INF), False),
        (outcome(NAN), False),
    ],
)
def test_to_learn_is_to_know_clearly_more_than_nothing(made: Outcome, answer: bool) -> None:
    assert learns(made) is answer


def test_a_trial_is_the_two_arms_and_the_verdict() -> None:
    without, treated = outcome(0.8), outcome(0.2, losses=(1.0, 0.5, 0.25))
    trial = trial_of(without, treated, remedy="r", measured="m", helps=True)
    assert (trial.without, trial.treated) == (without.arm, treated.arm)
    assert (trial.remedy, trial.measured, trial.helps, trial.steps) == ("r", "m", True, 3)
    assert trial.gain == pytest.approx(0.75)


def test_what_learned_nothing_and_begins_to_learn_is_woken_by_less_than_would_mend_it() -> None:
    silent, waking = outcome(1.0), outcome(0.84)
    assert wakes(waking, silent) and not mends(waking, silent)
    assert not wakes(outcome(0.95), silent)  # it still learns next to nothing
    assert not wakes(outcome(0.5), outcome(0.6))  # what learns already has to be mended by more
