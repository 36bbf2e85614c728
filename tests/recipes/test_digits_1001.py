"""What the recipe of 1001 layers must be: as deep as it says, with a clean sum through it."""

from __future__ import annotations

import torch
from torch import nn

from leadline.models.create import create_model
from leadline.nn.residual import residual_blocks
from leadline.recipes.digits_1001 import RECIPE


def test_it_has_1001_layers_with_a_shortcut_around_every_three() -> None:
    with torch.device("meta"):
        model = create_model(RECIPE.model, num_classes=10, in_chans=1, image_size=8)
    inside = [m for name, m in model.named_modules() if "downsample" not in name]
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in inside) == 1001
    assert len(residual_blocks(model)) == 333


def test_no_digit_is_mirrored() -> None:
    assert not RECIPE.augmentation.flip
