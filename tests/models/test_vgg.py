"""Tests of VGG: published sizes, shapes, what it cannot be asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError, ModelError
from leadline.models.create import create_model

COUNTS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg16_bn": 138_365_992,
}


@pytest.mark.parametrize("name", COUNTS)
def test_it_has_as_many_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_its_name_counts_the_layers_with_weights(depth: int) -> None:
    model = create_model("vgg11", num_classes=3, width=2, depth=depth, image_size=32)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth
    assert model.forward_features(torch.zeros(2, 3, 64, 96)).shape == (2, 16, 2, 3)


def test_a_depth_that_there_is_none_of_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"11, 13, 16, 19 layers, received 15; the nearest is 16"):
        create_model("vgg16", depth=15)


def test_images_that_leave_no_pixel_are_refused_with_the_smallest_side() -> None:
    with pytest.raises(ModelError, match="images of at least 32 x 32 pixels"):
        create_model("vgg16", image_size=28)
