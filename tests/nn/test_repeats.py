"""Tests of deeper and shallower stages in proportion."""

from __future__ import annotations

import math
import re

import pytest

from leadline.nn.repeats import repeat_problems, repeats

B0 = (1, 2, 2, 3, 3, 4, 1)


@pytest.mark.parametrize("factor", [1.0, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1])
def test_every_published_efficientnet_is_found_by_its_total(factor: float) -> None:
    counts = tuple(math.ceil(round(count * factor, 9)) for count in B0)
    assert repeats(B0, sum(counts)) == counts


def test_the_original_is_itself_and_nothing_is_left_out() -> None:
    assert repeats(B0, 16) == B0
    assert repeats(B0, 7) == (1,) * 7
    assert repeats(B0, 6) is None


def test_totals_that_no_factor_gives_have_neighbours_that_some_do() -> None:
    for total in range(7, 60):
        problems = repeat_problems(B0, total)
        assert (problems == []) == (repeats(B0, total) is not None)
        for problem in problems:
            below, above = map(int, re.findall(r"(\d+) and (\d+)", problem)[0])
            assert below < total < above
            assert repeats(B0, below) is not None
            assert repeats(B0, above) is not None
