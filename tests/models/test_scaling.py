"""Tests of widths for a budget: the largest that fits, whatever the family's unit."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ConfigError, ModelError
from leadline.models.architecture import Architecture
from leadline.models.create import FAMILIES, create_model, list_models, resolve
from leadline.models.scaling import count_parameters, depths, fit_width, for_small_images

FIRST = [
    name
    for number, name in enumerate(list_models())
    if FAMILIES[name].build not in {FAMILIES[other].build for other in list_models()[:number]}
]


def size(name: str) -> int:
    options = for_small_images(name, image_size=32)
    with torch.device("meta"):
        return max(32, create_model(Architecture(model=name, options=options)).smallest)


@pytest.mark.parametrize("name", FIRST)
def test_the_width_is_the_largest_within_the_budget(name: str) -> None:
    architecture = Architecture(model=name, options=for_small_images(name, image_size=32))
    side = size(name)
    fit = fit_width(architecture, num_classes=10, in_chans=3, image_size=side, parameters=300_000)
    assert fit.cost <= 300_000
    assert fit.share > 0.6  # a narrow Inception grows by a half with one more unit
    step = 4 if name.startswith("vit") else 1

    def count(width: int) -> int:
        with torch.device("meta"):
            model = create_model(architecture, num_classes=10, image_size=side, width=width)
        return count_parameters(model)

    assert count(fit.width) == fit.cost
    assert count(fit.width + step) > 300_000 or name == "mobilenet_v2"


def test_another_cost_can_be_the_budget() -> None:
    fit = fit_width(
        Architecture(model="mlp"),
        num_classes=10,
        in_chans=1,
        image_size=8,
        parameters=100,
        cost=lambda model: model.num_features,
    )
    assert fit.width == 100


def test_a_budget_that_nothing_meets_is_told() -> None:
    with pytest.raises(ModelError, match=r"at its narrowest, width 1"):
        fit_width(
            Architecture(model="mixer_s_16"),
            num_classes=10,
            in_chans=3,
            image_size=224,
            parameters=1000,
        )


def test_a_budget_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="parameters must be >= 1, received 0"):
        fit_width(Architecture(model="mlp"), num_classes=10, in_chans=1, image_size=8, parameters=0)


@pytest.mark.parametrize("name", FIRST)
def test_the_depths_are_some_that_the_model_can_have(name: str) -> None:
    found = depths(name)
    assert resolve(name).depth in found
    for depth in found:
        assert resolve(Architecture(model=name, depth=depth)).depth == depth
