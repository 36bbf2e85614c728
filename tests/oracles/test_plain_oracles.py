"""AlexNet and VGG held to torchvision's: weights, logits and gradients."""

from __future__ import annotations

import pytest
import torch
from original import assert_same, torchvision_model

from leadline.models.create import create_model


@pytest.mark.parametrize(("name", "side"), [("alexnet", 96), ("vgg11", 48), ("vgg16_bn", 64)])
def test_torchvision_weights_load_unchanged_and_give_its_logits_and_gradients(
    name: str, side: int
) -> None:
    original = torchvision_model(name, num_classes=7)
    model = create_model(name, num_classes=7, image_size=side)
    assert_same(model, original, torch.randn(2, 3, side, side))
