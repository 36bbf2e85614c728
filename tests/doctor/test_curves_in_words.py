"""Tests of loss curves drawn as a line of text."""

from __future__ import annotations

import math

import pytest

from leadline.doctor.curves_in_words import HEIGHTS, NOT_FINITE, Heights, losses_of, sparkline


def test_a_straight_line_is_a_staircase_of_all_heights() -> None:
    curve = [float(value) for value in range(8)]
    assert sparkline(curve, heights=Heights.over(curve), width=8) == HEIGHTS


def test_a_long_curve_is_drawn_by_the_means_of_its_parts() -> None:
    curve = [0.0, 2.0, 6.0, 8.0]  # means 1 and 7 of a scale from 0 to 8
    assert sparkline(curve, heights=Heights(low=0.0, high=8.0), width=2) == "▂█"


def test_a_short_curve_is_not_stretched() -> None:
    assert len(sparkline([1.0, 2.0], heights=Heights(low=0, high=3), width=30)) == 2
    assert sparkline([], heights=Heights(low=0, high=3), width=30) == ""


def test_two_curves_share_one_scale() -> None:
    heights = Heights.over([4.0, 4.0], [4.0, 0.0])
    assert sparkline([4.0, 4.0], heights=heights, width=2) == "██"
    assert sparkline([4.0, 0.0], heights=heights, width=2) == "█▁"


def test_an_explosion_does_not_flatten_the_other_curve() -> None:
    heights = Heights.over([2.0, 1e9], [2.0, 1.0])
    assert heights.cut and heights.high == 8.0
    assert sparkline([2.0, 1e9], heights=heights, width=2) == "▂█"


def test_losses_of_different_sizes_are_drawn_by_their_logarithms() -> None:
    heights = Heights.over([100.0, 10.0, 1.0])
    assert heights.log
    assert sparkline([100.0, 10.0, 1.0], heights=heights, width=3) == "█▅▁"
    assert not Heights.over([-1.0, 100.0]).log, "a logarithm needs positive numbers"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_marked_and_does_not_stretch_the_scale(value: float) -> None:
    heights = Heights.over([1.0, value, 2.0])
    assert (heights.low, heights.high) == (1.0, 2.0)
    assert sparkline([1.0, value], heights=heights, width=2) == "▁" + NOT_FINITE


def test_a_curve_of_one_value_or_of_none_that_is_finite_is_drawn() -> None:
    assert sparkline([3.0, 3.0], heights=Heights.over([3.0, 3.0]), width=2) == "▅▅"
    assert sparkline([math.nan], heights=Heights.over([math.nan]), width=2) == NOT_FINITE


def test_text_of_json_is_read_as_numbers() -> None:
    assert losses_of({"losses": [1, "inf"]}) == [1.0, math.inf]
    assert math.isnan(losses_of({"losses": ["nan"]})[0])
