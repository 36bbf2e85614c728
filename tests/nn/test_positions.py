"""Tests of positions: the formula, and interpolation against timm's."""

from __future__ import annotations

import math

import pytest
import torch

from leadline.nn.positions import resize_positions, sine_positions


def test_sine_positions_are_the_formula() -> None:
    found = sine_positions(8, grid=(3, 5))[0]
    for row in range(3):
        for column in range(5):
            expected = []
            for place in (column, row):
                waves = [10_000 ** (-i / 2) for i in range(2)]
                expected += [math.sin(place * w) for w in waves]
                expected += [math.cos(place * w) for w in waves]
            torch.testing.assert_close(found[5 * row + column], torch.tensor(expected))


def test_no_two_places_have_the_same_position() -> None:
    found = sine_positions(16, grid=(14, 14))[0]
    assert torch.cdist(found, found).add(10 * torch.eye(196)).min().item() > 0.1


@pytest.mark.parametrize(
    ("new", "others"), [((7, 7), 1), ((20, 20), 1), ((5, 9), 3), ((14, 14), 0)]
)
def test_interpolation_is_timm_s(new: tuple[int, int], others: int) -> None:
    from timm.layers import resample_abs_pos_embed

    positions = torch.randn(1, 14 * 14 + others, 6)
    found = resize_positions(positions, old=(14, 14), new=new, others=others)
    expected = resample_abs_pos_embed(positions, list(new), [14, 14], num_prefix_tokens=others)
    torch.testing.assert_close(found, expected)
