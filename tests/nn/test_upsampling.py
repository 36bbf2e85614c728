"""Tests of up-sampling: sizes, and no checkerboard."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.nn.upsampling import UPSAMPLINGS, make_upsampling


@pytest.mark.parametrize("name", UPSAMPLINGS)
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_both_sides_grow_by_the_factor(name: str, factor: int) -> None:
    layer = make_upsampling(name, inputs=3, outputs=5, factor=factor)
    assert layer(torch.randn(2, 3, 6, 7)).shape == (2, 5, 6 * factor, 7 * factor)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_transposed_convolution_writes_every_place_alike(factor: int) -> None:
    layer = make_upsampling("transposed", inputs=1, outputs=1, factor=factor)
    assert isinstance(layer, nn.ConvTranspose2d)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    written = layer(torch.ones(1, 1, 8, 8))[
        0, 0, 2 * factor : -2 * factor, 2 * factor : -2 * factor
    ]
    assert written.unique().numel() == 1
