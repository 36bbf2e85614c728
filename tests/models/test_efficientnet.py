"""Tests of EfficientNet: published sizes, the formula of compound scaling, batch norm's numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.core.errors import ConfigError
from leadline.models.create import FAMILIES, create_model
from leadline.models.efficientnet import PUBLISHED, compound

COUNTS = (
    5_288_548,
    7_794_184,
    9_109_994,
    12_233_232,
    19_341_616,
    30_389_784,
    43_040_704,
    66_347_960,
)


@pytest.mark.parametrize("number", range(8))
def test_it_has_as_many_parameters_as_published(number: int) -> None:
    with torch.device("meta"):
        model = create_model(f"efficientnet_b{number}")
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[number]


def test_the_formula_gives_the_published_ones_but_for_rounding() -> None:
    for phi, published in zip((0, 0.5, 1, 2, 3, 4, 5, 6), PUBLISHED, strict=True):
        scaling = compound(phi)
        assert abs(scaling.depth / published.depth - 1) < 0.13
        assert abs(scaling.width / published.width - 1) < 0.12
        assert abs(scaling.image_size / published.image_size - 1) < 0.15


@pytest.mark.parametrize("phi", [0.25, 1.5, 3.3])
def test_any_phi_builds_a_network(phi: float) -> None:
    scaling = compound(phi)
    with torch.device("meta"):
        model = create_model("efficientnet_b0", depth=scaling.depth, width=scaling.width)
    assert sum(p.numel() for p in model.parameters()) > COUNTS[0]


def test_the_largest_three_have_batch_norms_of_a_longer_memory() -> None:
    for number, expected in ((0, (1e-5, 0.1)), (5, (1e-3, 0.01))):
        with torch.device("meta"):
            model = create_model(f"efficientnet_b{number}")
        found = {(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
        assert found == {expected}


def test_each_is_for_pictures_of_its_own_size() -> None:
    sizes = [FAMILIES[f"efficientnet_b{number}"].image_size for number in range(8)]
    assert sizes == [224, 240, 260, 300, 380, 456, 528, 600]


def test_a_depth_out_of_proportion_is_told_with_its_neighbours() -> None:
    with pytest.raises(ConfigError, match=r"gives no 17 blocks; near it are 16 and "):
        create_model("efficientnet_b0", depth=17)
