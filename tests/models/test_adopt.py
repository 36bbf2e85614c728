"""Tests of adopting strangers' weights: what shapes say, and whose they are if not the named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from original import timm_model, torchvision_model
from safetensors.torch import save_file

from leadline.core.errors import ModelError, UnknownNameError
from leadline.models.adopt import adopt, read_weights
from leadline.models.create import create_model


def test_classes_and_channels_are_those_of_the_weights() -> None:
    adopted = adopt(timm_model("resnet18", num_classes=11, in_chans=1).state_dict(), "resnet18")
    assert (adopted.num_classes, adopted.in_chans, adopted.image_size) == (11, 1, 224)
    assert adopted.model(torch.randn(2, 1, 64, 64)).shape == (2, 11)


def test_the_size_is_that_of_positions_or_mixed_tokens() -> None:
    vit = timm_model("vit_tiny_patch16_224", num_classes=3, img_size=96, depth=12)
    assert adopt(vit.state_dict(), "vit_ti_16").image_size == 96
    mixer = timm_model("mixer_s16_224", num_classes=3, img_size=64)
    assert adopt(mixer.state_dict(), "mixer_s_16").image_size == 64


def test_a_file_without_auxiliary_heads_gives_a_model_without() -> None:
    original = torchvision_model("googlenet", num_classes=3, init_weights=False, aux_logits=False)
    adopted = adopt(original.state_dict(), "googlenet")
    assert adopted.architecture.options == ("aux_logits=False",)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(adopted.model.eval()(images), original.eval()(images))


def test_weights_of_another_family_are_told_with_the_nearest() -> None:
    state = torchvision_model("resnet34", num_classes=5).state_dict()
    with pytest.raises(ModelError) as caught:
        adopt(state, "resnet50")
    assert caught.value.expected == "weights of resnet50"
    assert "missing: layer1.0.conv3.weight" in caught.value.received
    assert "unexpected: layer3.6" not in caught.value.received
    assert caught.value.remedy.startswith("they look like those of resnet34 (100% of the tensors")
    assert caught.value.remedy.endswith("--as resnet34")


def test_weights_of_no_model_are_told() -> None:
    with pytest.raises(ModelError, match="like those of no model here"):
        adopt({"strange": torch.zeros(1)}, "resnet20")


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'resnet50'"):
        adopt({}, "resnet-50")


def test_both_kinds_of_files_are_read(tmp_path: Path) -> None:
    state = create_model("resnet20", num_classes=3, width=4).state_dict()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for ending in ("pth", "safetensors"):
        found = read_weights(tmp_path / f"a.{ending}")
        assert all(torch.equal(value, found[key]) for key, value in state.items())
