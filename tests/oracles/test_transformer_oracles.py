"""ViT and Mixer held to timm's: weights, logits and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from original import assert_same, timm_model

from leadline.models.create import create_model

ORIGINALS = {
    "vit_ti_16": "vit_tiny_patch16_224",
    "vit_b_16": "vit_base_patch16_224",
    "mixer_s_16": "mixer_s16_224",
    "mixer_b_16": "mixer_b16_224",
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_timm_weights_load_unchanged_and_give_its_logits_and_gradients(name: str) -> None:
    original = timm_model(ORIGINALS[name], num_classes=7, img_size=64)
    model = create_model(name, num_classes=7, image_size=64)
    assert set(model.state_dict()) == set(original.state_dict())
    assert_same(model, original, torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"registers": 3}, {"reg_tokens": 3}),
        ({"pooling": "mean"}, {"global_pool": "avg", "class_token": False}),
        ({"layer_scale": 0.1}, {"init_values": 0.1}),
        ({"drop_path_rate": 0.5}, {"drop_path_rate": 0.5}),
        (
            {"dropout": 0.2, "block_dropout": 0.3},
            {"drop_rate": 0.2, "proj_drop_rate": 0.3, "pos_drop_rate": 0.3},
        ),
    ],
)
def test_its_choices_are_timm_s(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    original = timm_model("vit_tiny_patch16_224", num_classes=7, img_size=64, depth=3, **theirs)
    model = create_model("vit_ti_16", num_classes=7, image_size=64, depth=3, **ours)
    assert_same(model, original, torch.randn(2, 3, 64, 64))
