"""Tests of depthwise convolutions, against a loop over channels."""

from __future__ import annotations

import torch
from torch.nn.functional import conv2d

from leadline.nn.depthwise import depthwise, depthwise_separable


def test_each_channel_is_filtered_by_its_own_kernel() -> None:
    torch.manual_seed(0)
    layer = depthwise(3, 5, norm="none", activation=None, stride=2)
    maps = torch.randn(2, 3, 9, 9)
    single = [
        conv2d(maps[:, c : c + 1], layer[0].weight[c : c + 1], stride=2, padding=2)
        + layer[0].bias[c]
        for c in range(3)
    ]
    torch.testing.assert_close(layer(maps), torch.cat(single, dim=1))


def test_two_steps_do_what_one_convolution_of_rank_one_kernels_does() -> None:
    torch.manual_seed(0)
    block = depthwise_separable(3, 4, 3, norm="none", activation="relu")
    block[0][2] = torch.nn.Identity()  # nothing between the two steps
    for part in block:
        torch.nn.init.zeros_(part[0].bias)
    own, mixing = block[0][0].weight[:, 0], block[1][0].weight[:, :, 0, 0]
    whole = mixing[:, :, None, None] * own[None]
    maps = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(block(maps), conv2d(maps, whole, padding=1).relu())


def test_it_costs_a_fraction_of_a_full_convolution() -> None:
    block = depthwise_separable(64, 128, 3, norm="batch", activation="relu")
    weights = sum(p.numel() for p in block.parameters() if p.ndim == 4)
    assert weights == 9 * 64 + 64 * 128
