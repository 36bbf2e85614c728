"""MobileNetV2, EfficientNet and ConvNeXt held to torchvision's: weights, logits and gradients."""

from __future__ import annotations

import pytest
import torch
from original import assert_same, torchvision_model

from leadline.models.create import create_model


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2",
        "efficientnet_b0",
        "efficientnet_b2",
        "efficientnet_b5",
        "convnext_tiny",
        "convnext_base",
    ],
)
def test_torchvision_weights_load_unchanged_and_give_its_logits_and_gradients(name: str) -> None:
    original = torchvision_model(name, num_classes=7)
    model = create_model(name, num_classes=7, image_size=64)
    assert set(model.state_dict()) == set(original.state_dict())
    assert_same(model, original, torch.randn(3, 3, 64, 64))


def test_a_mobilenet_of_another_width_is_torchvision_s() -> None:
    original = torchvision_model("mobilenet_v2", num_classes=7, width_mult=0.5)
    model = create_model("mobilenet_v2", num_classes=7, width=50, image_size=64)
    assert_same(model, original, torch.randn(3, 3, 64, 64))
