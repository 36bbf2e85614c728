"""Tests of ConvNeXt: published sizes, stages, layer scale, what it cannot be asked for."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ConfigError, ModelError
from leadline.models.create import create_model

COUNTS = {
    "convnext_tiny": 28_589_128,
    "convnext_small": 50_223_688,
    "convnext_base": 88_591_464,
    "convnext_large": 197_767_336,
}


@pytest.mark.parametrize("name", COUNTS)
def test_it_has_as_many_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]


@pytest.mark.parametrize(("residual", "start"), [(True, 1e-6), (False, 1.0)])
def test_the_layer_scale_is_tiny_only_beside_a_shortcut(residual: bool, start: float) -> None:
    model = create_model(
        "convnext_tiny", num_classes=3, width=4, residual=residual, drop_path_rate=0
    )
    scale = model.get_parameter("features.1.0.layer_scale")
    assert scale.unique().tolist() == pytest.approx([start])


@pytest.mark.parametrize("norm", ["batch", "group", "rms", "none"])
def test_every_norm_gives_the_same_shapes(norm: str) -> None:
    model = create_model("convnext_tiny", num_classes=3, width=8, depth=6, norm=norm)
    assert model.forward_features(torch.randn(2, 3, 64, 32)).shape == (2, 64, 2, 1)


def test_a_depth_that_is_no_multiple_of_six_is_told_with_its_neighbours() -> None:
    with pytest.raises(ConfigError, match=r"received 8; near it are 6 and 12"):
        create_model("convnext_tiny", depth=8)


def test_instance_norm_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="'instance' would make nothing of the head's one pixel"):
        create_model("convnext_tiny", norm="instance")


def test_images_that_leave_no_pixel_are_refused_with_the_smallest_side() -> None:
    with pytest.raises(ModelError, match="images of at least 32 x 32 pixels"):
        create_model("convnext_tiny", image_size=28)
