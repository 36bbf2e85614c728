"""Tests of the CIFAR form of ResNet; its logits are held to trained ones in tests/oracles."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ConfigError
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.models.resnet_cifar import DEPTHS, ResNetCifar, SubsampleAndPad


def build(**options: object) -> ResNetCifar:
    architecture = Architecture(**({"model": "resnet20"} | options))  # type: ignore[arg-type]
    model = create_model(architecture, num_classes=10, in_chans=3, image_size=32)
    assert isinstance(model, ResNetCifar)
    return model


@pytest.mark.parametrize(
    ("depth", "millions"),
    # He et al. 2015, table 6
    [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)],
)
def test_parameters_are_as_many_as_the_paper_says(depth: int, millions: float) -> None:
    with torch.device("meta"):
        model = build(model=f"resnet{depth}")
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert round(count, 1 if millions > 1 else 2) == millions


@pytest.mark.parametrize("depth", [*DEPTHS[:4], 8])
def test_the_depth_counts_the_convolutions_and_the_head(depth: int) -> None:
    weights = [p for p in build(depth=depth).parameters() if p.ndim > 1]
    assert len(weights) == depth


@pytest.mark.parametrize(
    ("depth", "near"), [(21, "20 and 26"), (2, "8 and 14"), (7, "8 and 14"), (50, None)]
)
def test_another_depth_is_refused_with_those_near_it(depth: int, near: str | None) -> None:
    if near is None:
        assert build(depth=depth) is not None
        return
    with pytest.raises(ConfigError) as caught:
        build(depth=depth)
    assert caught.value.problems == (
        f"depth: the CIFAR form of ResNet has 6n + 2 layers, n >= 1, received {depth}; "
        f"near it are {near}",
    )


def test_the_shortcut_takes_every_second_pixel_and_pads_both_sides_with_zeros() -> None:
    maps = torch.randn(2, 4, 5, 6)
    out = SubsampleAndPad(extra_channels=5, stride=2)(maps)
    assert out.shape == (2, 9, 3, 3)
    assert torch.equal(out[:, 2:6], maps[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


def test_the_last_map_is_a_quarter_of_the_image() -> None:
    assert build().forward_features(torch.randn(2, 3, 32, 32)).shape == (2, 64, 8, 8)


def test_with_preactivation_the_last_map_is_normalised_and_activated() -> None:
    maps = build(preactivation=True).forward_features(torch.randn(8, 3, 16, 16))
    assert maps.min().item() == 0
    # half of a standard normal's second moment lies above zero
    assert maps.square().mean().item() == pytest.approx(0.5, rel=0.3)
