"""Tests of scales and their ticks."""

from __future__ import annotations

import itertools
import math

import pytest

from leadline.core.errors import ConfigError
from leadline.report.scales import Scale, extent, log_ticks, tick_text, ticks


def test_the_ends_of_the_values_meet_the_ends_of_the_axis() -> None:
    scale = Scale(low=-3, high=7, start=50, end=450)
    assert (scale.place(-3), scale.place(2), scale.place(7)) == (50, 250, 450)


def test_equal_factors_are_equal_distances_on_a_logarithmic_axis() -> None:
    scale = Scale(low=1e-4, high=1e4, start=0, end=80, log=True)
    assert [scale.place(10.0**k) for k in (-4, -2, 0, 4)] == [0, 20, 40, 80]


def test_an_axis_without_extent_is_refused_with_both_ends_named() -> None:
    with pytest.raises(ConfigError, match=r"low 2 must be < high 2"):
        Scale(low=2, high=2, start=0, end=1)


def test_a_logarithmic_axis_from_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"low must be > 0 on a log axis, received 0"):
        Scale(low=0, high=2, start=0, end=1, log=True)


@pytest.mark.parametrize("low", [-7.3, 0.0, 0.91, 1e-7])
@pytest.mark.parametrize("span", [1e-6, 0.037, 1.0, 19.0, 12345.0])
def test_ticks_are_four_to_eight_round_values_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 3 <= len(found) <= 8
    assert all(low - 1e-9 * span <= value <= low + span * (1 + 1e-9) for value in found)
    steps = {round((b - a) / span, 6) for a, b in itertools.pairwise(found)}
    assert len(steps) == 1


def test_zero_is_a_tick_without_a_sign() -> None:
    assert [str(v) for v in ticks(-1, 1) if v == 0] == ["0.0"]


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1e3), (0.3, 0.9), (0.11, 47.0), (2, 2000)])
def test_logarithmic_ticks_are_inside_and_at_least_two(low: float, high: float) -> None:
    found = log_ticks(low, high)
    assert len(found) >= 2
    assert all(low <= value <= high for value in found)


def test_a_logarithmic_axis_over_decades_is_labelled_with_one_two_and_five() -> None:
    assert {f"{value:.0e}"[0] for value in log_ticks(0.11, 47.0)} == {"1", "2", "5"}


def test_large_ticks_are_written_short() -> None:
    assert [tick_text(v) for v in (1500.0, 20000.0, 3e6)] == ["1500", "20k", "3M"]


def test_small_ticks_are_powers_of_ten() -> None:
    assert [tick_text(v) for v in (0.001, 0.0002, 0.0001)] == ["0.001", "2·10⁻⁴", "10⁻⁴"]


def test_values_that_are_not_finite_do_not_stretch_the_axis() -> None:
    assert extent([2, math.nan, 4, math.inf]) == extent([2, 4])


def test_an_axis_without_values_still_has_an_extent() -> None:
    assert extent([]) == (0.0, 1.0)
    assert extent([-1.0], log=True) == (0.1, 1.0)


def test_a_constant_is_drawn_in_the_middle() -> None:
    assert extent([4, 4]) == (2.0, 6.0)
    assert extent([0, 0]) == (0.0, 1.0)
