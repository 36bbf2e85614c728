"""Tests of the brick: its layers, sizes, names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.nn.conv_block import NAMED, conv_block


def test_it_is_convolution_norm_activation() -> None:
    torch.manual_seed(0)
    block = conv_block(3, 4, 3, norm="batch", activation="relu")
    maps = torch.randn(2, 3, 5, 5)
    expected = nn.functional.conv2d(maps, block[0].weight, padding=1)
    expected = nn.functional.batch_norm(expected, None, None, training=True).relu()
    torch.testing.assert_close(block(maps), expected)


@pytest.mark.parametrize("kernel", [1, 3, 5, (1, 7), (7, 1)])
def test_the_size_of_the_map_stays_at_stride_one(kernel: int | tuple[int, int]) -> None:
    block = conv_block(2, 3, kernel, norm="none", activation=None)
    assert block(torch.zeros(1, 2, 9, 6)).shape == (1, 3, 9, 6)


def test_a_convolution_has_a_bias_only_where_no_norm_shifts() -> None:
    assert conv_block(2, 3, 3, norm="none", activation="relu")[0].bias is not None
    assert conv_block(2, 3, 3, norm="group", activation="relu")[0].bias is None


def test_stride_padding_and_groups_are_the_convolution_s() -> None:
    block = conv_block(4, 4, 3, norm="none", activation=None, stride=2, padding=0, groups=4)
    assert block(torch.zeros(1, 4, 9, 9)).shape == (1, 4, 4, 4)
    assert block[0].weight.shape == (4, 1, 3, 3)


def test_the_layers_are_named_as_asked() -> None:
    block = conv_block(2, 3, 3, norm="batch", activation="relu", names=NAMED)
    assert [name for name, _ in block.named_children()] == ["conv", "bn", "relu"]
    assert len(conv_block(2, 3, 3, norm="batch", activation=None)) == 2
