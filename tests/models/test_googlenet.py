"""Tests of GoogLeNet: published sizes, shapes, heads, what it cannot be asked for."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ConfigError, ModelError
from leadline.models.create import create_model


@pytest.mark.parametrize(("auxiliary", "count"), [(True, 13_004_888), (False, 6_624_904)])
def test_it_has_as_many_parameters_as_published(auxiliary: bool, count: int) -> None:
    with torch.device("meta"):
        model = create_model("googlenet", aux_logits=auxiliary)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_width_scales_every_branch() -> None:
    model = create_model("googlenet", num_classes=3, width=16, image_size=64)
    assert model.num_features == 256
    assert model.forward_features(torch.zeros(2, 3, 64, 96)).shape == (2, 256, 2, 3)


def test_a_new_head_renews_the_auxiliary_ones() -> None:
    model = create_model("googlenet", num_classes=3, width=2)
    model.reset_classifier(5)
    outputs = model(torch.randn(2, 3, 32, 32))
    assert [tuple(logits.shape) for logits in (outputs.logits, *outputs.auxiliary)] == [(2, 5)] * 3


def test_without_auxiliary_heads_training_gives_the_logits() -> None:
    model = create_model("googlenet", num_classes=3, width=2, aux_logits=False)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    model.reset_classifier(5)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 5)


def test_images_that_leave_no_pixel_are_refused_with_the_smallest_side() -> None:
    with pytest.raises(ModelError, match="images of at least 15 x 15 pixels"):
        create_model("googlenet", image_size=14)


def test_another_depth_is_refused() -> None:
    with pytest.raises(ConfigError, match="depth: googlenet has 22 alone, received 20"):
        create_model("googlenet", depth=20)
