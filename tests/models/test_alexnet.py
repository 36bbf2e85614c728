"""Tests of AlexNet: its published size, its shapes, what it cannot be asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError, ModelError
from leadline.models.create import create_model


def test_it_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        model = create_model("alexnet")
    assert sum(parameter.numel() for parameter in model.parameters()) == 61_100_840


def test_the_width_scales_the_dense_layers_too() -> None:
    model = create_model("alexnet", num_classes=3, width=2, image_size=64)
    widths = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    assert widths == [128, 128, 3]
    assert model.forward_features(torch.zeros(2, 3, 224, 224)).shape == (2, 8, 6, 6)


def test_a_norm_stands_behind_every_convolution() -> None:
    model = create_model("alexnet", num_classes=3, width=2, norm="batch", image_size=64)
    kinds = [type(layer).__name__ for layer in model.get_submodule("features")]
    assert [kinds[i + 1] for i, kind in enumerate(kinds) if kind == "Conv2d"] == ["BatchNorm2d"] * 5


def test_images_that_leave_no_pixel_are_refused_with_the_smallest_side() -> None:
    with pytest.raises(ModelError, match="images of at least 63 x 63 pixels"):
        create_model("alexnet", image_size=62)


def test_another_depth_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        create_model("alexnet", depth=9, residual=True)
    assert caught.value.problems == (
        "depth: alexnet has 8 alone, received 9; leave it out",
        "residual: alexnet has False alone, received True; leave it out",
    )
