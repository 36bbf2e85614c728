"""Tests of patches, against a loop over squares."""

from __future__ import annotations

import torch

from leadline.nn.patches import PatchEmbedding, as_tokens


def test_each_square_goes_through_one_linear_map_row_by_row() -> None:
    torch.manual_seed(0)
    layer = PatchEmbedding(3, 5, patch_size=4)
    images = torch.randn(2, 3, 8, 12)
    tokens = as_tokens(layer(images))
    weight, bias = layer.proj.weight.flatten(1), layer.proj.bias
    assert bias is not None
    for row in range(2):
        for column in range(3):
            square = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            expected = square.flatten(1) @ weight.T + bias
            torch.testing.assert_close(tokens[:, 3 * row + column], expected)


def test_odd_sizes_are_padded_at_the_right_and_below_and_no_pixel_is_dropped() -> None:
    torch.manual_seed(0)
    layer = PatchEmbedding(1, 5, patch_size=4)
    images = torch.randn(2, 1, 7, 9, requires_grad=True)
    padded = torch.nn.functional.pad(images, (0, 3, 0, 1))
    torch.testing.assert_close(layer(images), layer.proj(padded))
    layer(images).square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()
