"""Tests of naming the model that weights are of."""

from __future__ import annotations

import pytest
import torch
from original import timm_model, torchvision_model

from leadline.models.recognise import _jaccard, _signature, recognise

NAMES = ("resnet18", "vgg11", "densenet121", "mobilenet_v2", "efficientnet_b0", "resnet34")


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_torchvision_is_recognised(name: str) -> None:
    original = torchvision_model(name, num_classes=7)
    found = recognise(original.state_dict(), names=NAMES)
    assert found[0].name == name
    assert found[0].share == 1.0


def test_a_model_under_timm_s_names_is_recognised() -> None:
    original = timm_model("convnext_tiny", num_classes=7)
    names = ["convnext_tiny", "convnext_small", "resnet50"]
    assert recognise(original.state_dict(), names=names)[0].name == "convnext_tiny"


def test_what_is_like_nothing_is_said_to_be_like_nothing() -> None:
    assert recognise({"strange.weight": torch.zeros(3)}) == ()


def test_the_share_is_that_of_tensors_alike() -> None:
    state = {f"{i}": torch.zeros(i + 1) for i in range(4)}
    other = {"0": torch.zeros(1), "1": torch.zeros(9), "head.weight": torch.zeros(2)}
    first, second = _signature(state, ("head.",)), _signature(other, ("head.",))
    assert _jaccard(first, second) == 1 / 5
