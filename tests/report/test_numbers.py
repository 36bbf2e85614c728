"""Tests of numbers written for people."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from leadline.report.numbers import clock, duration, interval, number, percent, plural, size


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0.0 %"), (0.5, "50.0 %"), (0.9999, "99.99 %"), (0.0004, "0.04 %"), (1.0, "100.0 %")],
)
def test_a_share_never_claims_to_be_all_or_nothing_when_it_is_not(share: float, text: str) -> None:
    assert percent(share) == text


def test_a_share_that_is_not_a_number_is_said_to_be_unknown() -> None:
    assert percent(math.nan) == "not known"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.25, "-0.25"),
        (99.96, "100"),
        (123456.0, "123,456"),
        (1000, "1,000"),
        (2.5e12, "2.50 × 10¹²"),
        (math.inf, "infinite"),
        (-math.inf, "minus infinite"),
    ],
)
def test_a_number_has_three_digits_and_no_empty_ones(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00 s"), (59.94, "59.9 s"), (60, "1 min"), (3600, "1 h"), (86400 * 3, "3 d")],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_clock_never_runs_below_zero() -> None:
    assert clock(-3) == "0:00"


def test_one_is_singular_and_everything_else_plural() -> None:
    assert [plural(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]


def test_a_terabyte_is_the_largest_unit() -> None:
    assert size(2 * 10**15) == "2,000 TB"


@pytest.mark.parametrize(("right", "total"), [(0, 5), (5, 5), (350, 359), (9912, 10000)])
def test_the_interval_is_the_one_that_scipy_computes(right: int, total: int) -> None:
    oracle = binomtest(right, total).proportion_ci(method="wilson")
    assert interval(right, total) == pytest.approx((oracle.low, oracle.high), abs=1e-6)


def test_nothing_measured_leaves_everything_open() -> None:
    assert interval(0, 0) == (0.0, 1.0)
