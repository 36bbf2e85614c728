"""Tests of the small convolutional net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError
from leadline.models.convnet import STAGES, ConvNet, Refinement, stage_sizes
from leadline.models.create import create_model
from leadline.nn.residual import residual_blocks


def build(image_size: int = 32, **options: object) -> ConvNet:
    model = create_model("convnet", num_classes=3, in_chans=1, image_size=image_size, **options)
    assert isinstance(model, ConvNet)
    return model


def convolutions(model: nn.Module) -> list[tuple[int, int]]:
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return [(layer.in_channels, layer.out_channels) for layer in layers]


def test_the_width_sets_the_channels_of_every_stage() -> None:
    first, second, third = (16 * multiple for multiple in STAGES)
    assert convolutions(build(width=16)) == [
        (1, 8),
        *((8, first), (first, first)),
        *((first, second), (second, second)),
        *((second, third), (third, third)),
    ]


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_the_depth_is_the_number_of_convolutions_per_stage(depth: int) -> None:
    assert len(convolutions(build(width=4, depth=depth))) == 1 + 3 * depth


@pytest.mark.parametrize(("depth", "paths"), [(1, 0), (2, 0), (3, 3), (4, 3)])
def test_from_three_convolutions_on_a_residual_path_leads_around_the_later_ones(
    depth: int, paths: int
) -> None:
    assert len(residual_blocks(build(width=4, depth=depth))) == paths


def test_the_residual_path_can_be_had_at_depth_two_and_left_out_at_three() -> None:
    assert len(residual_blocks(build(width=4, depth=2, residual=True))) == 3
    assert residual_blocks(build(width=4, depth=3, residual=False)) == ()


def test_a_refinement_adds_its_input_before_the_activation() -> None:
    block = next(m for m in build(width=4, depth=3).eval().modules() if isinstance(m, Refinement))
    maps = torch.randn(2, 4, 6, 6)
    expected = nn.functional.gelu(maps + block.layers(maps))
    torch.testing.assert_close(block(maps), expected)


@pytest.mark.parametrize("image_size", [1, 4, 5, 8, 13, 28, 32, 64])
def test_maps_are_halved_rounding_up_until_they_are_small(image_size: int) -> None:
    model = build(image_size=image_size, width=4)
    maps = model.forward_features(torch.randn(2, 1, image_size, image_size))
    side = stage_sizes(image_size)[-1]
    assert maps.shape == (2, 4 * STAGES[-1], side, side)


def test_the_sizes_of_common_images() -> None:
    assert stage_sizes(32) == (32, 16, 8, 4)
    assert stage_sizes(28) == (28, 14, 7, 4)
    assert stage_sizes(8) == (8, 4, 4, 4)
    assert stage_sizes(1) == (1, 1, 1, 1)


def test_the_head_reads_the_largest_value_of_each_channel() -> None:
    model = build(width=4).eval()
    images = torch.randn(2, 1, 32, 32)
    largest = model.forward_features(images).amax(dim=(2, 3))
    torch.testing.assert_close(model(images), model.head(largest))


def test_a_residual_path_needs_two_convolutions_per_stage() -> None:
    with pytest.raises(ConfigError, match="use depth 2 or more"):
        build(depth=1, residual=True)


@pytest.mark.parametrize("pool", ["max", "average", "blur", "stride"])
@pytest.mark.parametrize("whole", ["max", "average", "both"])
def test_every_pooling_gives_the_same_sizes_and_learns(pool: str, whole: str) -> None:
    torch.manual_seed(0)
    model = build(width=4, depth=2, pool=pool, whole=whole)
    images = torch.randn(2, 1, 32, 32)
    assert model.forward_features(images).shape == (2, 16, 4, 4)
    model(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_dilated_convolutions_see_further() -> None:
    def reach(dilation: int) -> int:
        torch.manual_seed(0)
        model = build(width=4, depth=2, dilation=dilation, norm="none", pool="average").eval()
        images = torch.zeros(1, 1, 160, 160, requires_grad=True)
        model.forward_features(images)[0, :, 10, 10].sum().backward()
        assert images.grad is not None
        return int((images.grad.abs().sum(dim=(0, 1)) > 0).any(dim=0).sum())

    assert reach(2) > reach(1)


def test_a_dilation_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="dilation must be >= 1, received 0"):
        build(dilation=0)
