"""Tests of a trial: its gain, its harm, and its curve as it is handed on."""

from __future__ import annotations

import json
import math
import statistics

import pytest

from leadline.doctor.trial import MOST_POINTS, Arm, Trial, smoothed


def arm(error: float, *, ended: str = "", losses: tuple[float, ...] = (1.0,)) -> Arm:
    return Arm(losses=losses, error=error, surprise=error, ended=ended)


def trial(without: Arm, treated: Arm) -> Trial:
    return Trial(remedy="r", steps=1, without=without, treated=treated, measured="m", helps=True)


@pytest.mark.parametrize(
    ("before", "after", "gain"),
    [
        (0.8, 0.2, 0.75),
        (0.5, 0.5, 0.0),
        (0.5, 1.0, -1.0),
        (0.5, 0.0, 1.0),
        (0.0, 0.3, 0.0),
        (math.inf, 0.9, 1.0),
        (math.nan, 0.9, 1.0),
        (0.8, math.inf, 0.0),
        (math.inf, math.inf, 0.0),
        (0.8, math.nan, 0.0),
    ],
)
def test_the_gain_is_the_part_of_the_error_that_is_gone(
    before: float, after: float, gain: float
) -> None:
    assert trial(arm(before), arm(after)).gain == pytest.approx(gain)


@pytest.mark.parametrize(
    ("without", "treated", "harms"),
    [
        (arm(0.5), arm(0.5), False),
        (arm(0.5), arm(0.64), False),
        (arm(0.5), arm(0.65), True),
        (arm(0.0), arm(0.02), False),
        (arm(0.0), arm(0.03), True),
        (arm(0.5), arm(math.inf), True),
        (arm(0.5), arm(math.nan), True),
        (arm(0.5), arm(0.1, ended="loss nan"), True),
        (arm(math.inf), arm(math.inf), False),
        (arm(0.5, ended="loss nan"), arm(9.0), False),
    ],
)
def test_a_remedy_harms_when_the_training_ends_clearly_worse(
    without: Arm, treated: Arm, harms: bool
) -> None:
    assert trial(without, treated).harms is harms


@pytest.mark.parametrize("last", [1, 3, 5, 9, 11])
def test_smoothed_is_the_median_of_the_last_losses(last: int) -> None:
    losses = [9.0, 1.0, 7.0, 3.0, 5.0, 8.0, 2.0, 6.0, 4.0, 0.5, 0.1]
    assert smoothed(losses, last=last) == statistics.median(losses[-last:])


def test_of_an_even_number_the_higher_of_the_two_middle_losses_counts() -> None:
    assert smoothed([1.0, 2.0, 3.0, 4.0], last=4) == statistics.median_high([1, 2, 3, 4])


@pytest.mark.parametrize("losses", [[], [1.0, math.nan], [math.inf, 1.0]])
def test_smoothed_is_infinite_where_a_loss_is_none(losses: list[float]) -> None:
    assert smoothed(losses) == math.inf


def test_a_loss_that_was_not_finite_long_ago_does_not_count() -> None:
    assert smoothed([math.nan, 1.0, 2.0, 3.0], last=3) == 2.0


@pytest.mark.parametrize("count", [1, MOST_POINTS, MOST_POINTS + 1, 999, 1000, 2000])
def test_a_curve_is_thinned_evenly(count: int) -> None:
    plain = arm(0.5, losses=tuple(float(n) for n in range(count))).to_plain()
    every = plain["every"]
    assert len(plain["losses"]) <= MOST_POINTS
    assert plain["losses"] == [float(n) for n in range(0, count, every)]
    assert every == 1 or len(range(0, count, every - 1)) > MOST_POINTS  # no thinner than needed


def test_what_is_not_finite_is_text_in_json() -> None:
    plain = trial(
        arm(math.inf, losses=(1.0, math.nan), ended="loss nan at step 2"), arm(math.nan)
    ).to_plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["without"] == {
        "losses": [1.0, "nan"],
        "every": 1,
        "error": "inf",
        "surprise": "inf",
        "ended": "loss nan at step 2",
        "seconds": 0.0,
    }
    assert (plain["treated"]["error"], plain["gain"], plain["helps"]) == ("nan", 0.0, True)
