"""DenseNet held to torchvision's: weights, logits and gradients."""

from __future__ import annotations

import pytest
import torch
from original import assert_same, torchvision_model

from leadline.models.create import create_model


@pytest.mark.parametrize("name", ["densenet121", "densenet161"])
def test_torchvision_weights_load_unchanged_and_give_its_logits_and_gradients(name: str) -> None:
    original = torchvision_model(name, num_classes=7)
    model = create_model(name, num_classes=7, image_size=48)
    assert list(model.state_dict()) == list(original.state_dict())
    assert_same(model, original, torch.randn(2, 3, 48, 48))
