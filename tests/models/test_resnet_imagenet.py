"""Tests of the ImageNet form of ResNet; its logits are held to torchvision's in tests/oracles."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ConfigError
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.models.resnet_imagenet import PLANS, ResNetImageNet


def build(**options: object) -> ResNetImageNet:
    chosen = {"model": "resnet18", "width": 8} | options
    architecture = Architecture(**chosen)  # type: ignore[arg-type]
    model = create_model(architecture, num_classes=10, in_chans=3, image_size=64)
    assert isinstance(model, ResNetImageNet)
    return model


@pytest.mark.parametrize("depth", PLANS)
def test_the_depth_counts_the_convolutions_of_the_branches_the_stem_and_the_head(
    depth: int,
) -> None:
    named = build(depth=depth).named_parameters()
    weights = [name for name, p in named if p.ndim > 1 and "downsample" not in name]
    assert len(weights) == depth


def test_another_depth_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigError) as caught:
        build(depth=20)
    assert caught.value.problems == (
        "depth: the ImageNet form of ResNet has 18, 34, 50, 101, 152 layers, received 20; "
        "for other depths take the CIFAR form, such as resnet20",
    )


def test_the_last_map_is_a_thirty_second_of_the_image() -> None:
    assert build().forward_features(torch.randn(1, 3, 96, 64)).shape == (1, 64, 3, 2)


def test_with_preactivation_the_shortcuts_have_no_norm_and_the_end_has_one() -> None:
    keys = build(preactivation=True).state_dict().keys()
    assert "layer2.0.downsample.0.weight" in keys
    assert "layer2.0.downsample.1.weight" not in keys
    assert "norm.weight" in keys
    assert "bn1.weight" not in keys


def test_without_the_residual_path_there_are_no_shortcuts() -> None:
    assert not any("downsample" in key for key in build(residual=False).state_dict())


def test_without_a_norm_every_convolution_has_a_bias() -> None:
    model = build(norm="none")
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(convolution.bias is not None for convolution in convolutions)
    assert not any("running" in key for key in model.state_dict())
