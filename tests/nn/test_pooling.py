"""Tests of pooling: sizes, the blur's formula, and what it does against aliasing."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import UnknownNameError
from leadline.nn.pooling import HALVINGS, BlurPool, GlobalPool, make_halving


@pytest.mark.parametrize("name", HALVINGS)
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_sides_are_halved_and_rounded_up(name: str, size: int) -> None:
    assert make_halving(name)(torch.zeros(1, 2, size, 7)).shape == (1, 2, -(-size // 2), 4)


def test_the_blur_is_the_binomial_kernel_on_repeated_edges() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 6, 7)
    padded = torch.nn.functional.pad(maps, (1, 1, 1, 1), mode="replicate")
    weights = torch.tensor([0.25, 0.5, 0.25])
    expected = torch.zeros(2, 3, 3, 4)
    for i in range(3):
        for j in range(4):
            window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            expected[:, :, i, j] = torch.einsum("bcij,i,j->bc", window, weights, weights)
    torch.testing.assert_close(BlurPool()(maps), expected)


def test_what_changes_from_place_to_place_is_gone_and_what_is_even_stays() -> None:
    board = torch.tensor([1.0, -1.0]).repeat(8)[None, None, None].expand(1, 1, 16, 16)
    assert BlurPool()(board)[..., 1:-1].abs().max().item() < 1e-6
    assert torch.allclose(BlurPool()(torch.ones(1, 1, 9, 9)), torch.ones(1, 1, 5, 5))


def test_a_shift_by_one_pixel_changes_blurred_maps_least() -> None:
    torch.manual_seed(0)
    maps = torch.randn(8, 4, 33, 33)

    def change(name: str) -> float:
        pool = make_halving(name)
        return (pool(maps[..., :-1]) - pool(maps[..., 1:])).square().mean().item()

    assert change("blur") < 0.5 * change("max")


def test_a_whole_map_is_one_number_for_each_channel() -> None:
    maps = torch.randn(2, 3, 4, 5)
    average, largest = maps.flatten(2).mean(dim=2), maps.flatten(2).max(dim=2).values
    torch.testing.assert_close(GlobalPool("average")(maps), average)
    torch.testing.assert_close(GlobalPool("max")(maps), largest)
    torch.testing.assert_close(GlobalPool("both")(maps), average + largest)


def test_an_unknown_pooling_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'average'"):
        make_halving("averge")
