"""Tests of what defines a model: ranges, choices that exclude each other, images that misfit."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from leadline.core.config import from_json
from leadline.core.errors import ConfigError, ModelError
from leadline.models.architecture import Architecture, Blueprint, Images, check_images, fill_in
from leadline.models.create import FAMILIES, create_model, resolve


def test_the_options_are_the_ones_that_the_command_line_shows() -> None:
    assert [field.name for field in dataclasses.fields(Architecture)] == [
        "model",
        "depth",
        "width",
        "norm",
        "activation",
        "init",
        "residual",
        "preactivation",
        "dropout",
        "drop_path_rate",
    ]


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Architecture(depth=0, width=-3, dropout=1.0, drop_path_rate=-0.1)
    assert caught.value.problems == (
        "depth must be >= 1, received 0",
        "width must be >= 1, received -3",
        "dropout must be >= 0 and < 1, received 1.0",
        "drop_path_rate must be >= 0 and < 1, received -0.1",
    )


def test_a_wrong_choice_in_json_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"received 'gleu' \(did you mean 'gelu'\?\)"):
        from_json(Architecture, '{"activation": "gleu"}')


def test_what_is_left_open_is_the_family_s_default() -> None:
    assert fill_in(Architecture(model="resnet32"), family=FAMILIES["resnet32"]) == Blueprint(
        depth=32, width=16, norm="batch", activation="relu", init="he", residual=True
    )


def test_what_is_asked_for_is_kept() -> None:
    asked: dict[str, Any] = {
        "depth": 26,
        "width": 12,
        "norm": "rms",
        "activation": "silu",
        "init": "lecun",
        "residual": False,
        "preactivation": True,
        "dropout": 0.25,
    }
    blueprint = resolve(Architecture(model="resnet20", **asked))
    assert {name: getattr(blueprint, name) for name in asked} == asked


def test_fixup_brings_its_own_norm_which_is_none() -> None:
    assert resolve(Architecture(model="resnet20", init="fixup")).norm == "none"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"model": "mlp", "preactivation": True},
            "preactivation: mlp has no pre-activation form; leave it out",
        ),
        (
            {"model": "convnet", "preactivation": True},
            "preactivation: convnet has no pre-activation form; leave it out",
        ),
        (
            {"model": "mlp", "init": "fixup"},
            "init: 'fixup' needs a residual path, and this model has none: "
            "add residual=True, or use init='he'",
        ),
        (
            {"model": "resnet20", "init": "zero_last", "residual": False},
            "init: 'zero_last' needs a residual path, and this model has none: "
            "add residual=True, or use init='he'",
        ),
        (
            {"model": "resnet18", "drop_path_rate": 0.1, "residual": False},
            "drop_path_rate: 0.1 needs a residual path, and this model has none: "
            "add residual=True, or set it to 0",
        ),
        (
            {"model": "resnet20", "init": "fixup", "norm": "batch"},
            "init: 'fixup' takes the place of a norm, received norm='batch': "
            "use norm='none', or init='zero_last'",
        ),
    ],
)
def test_a_choice_the_family_cannot_honour_is_named_never_ignored(
    options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        create_model(Architecture(**options), num_classes=2, in_chans=1, image_size=8)
    assert caught.value.problems == (problem,)


def test_several_such_choices_are_told_at_once() -> None:
    architecture = Architecture(
        model="mlp", preactivation=True, norm="instance", drop_path_rate=0.5, init="fixup"
    )
    with pytest.raises(ConfigError) as caught:
        resolve(architecture)
    named = [problem.split(":")[0] for problem in caught.value.problems]
    assert named == ["init", "drop_path_rate", "init", "norm", "preactivation"]


def test_a_blueprint_has_biases_only_where_no_norm_shifts() -> None:
    assert resolve(Architecture(model="resnet20", norm="none")).bias
    assert not resolve("resnet20").bias


def test_impossible_images_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Images(num_classes=0, in_chans=0, image_size=0)
    assert len(caught.value.problems) == 3


def test_images_of_another_number_of_channels_are_refused_with_the_remedy() -> None:
    model = create_model("convnet", num_classes=2, in_chans=3, image_size=8)
    with pytest.raises(ModelError) as caught:
        model(torch.zeros(2, 1, 8, 8))
    assert str(caught.value) == (
        "expected images of shape (batch, 3, height, width)\n"
        "received shape (2, 1, 8, 8)\n"
        "do this  convert the images to 3 channels, or build the model with in_chans as the data "
        "have it"
    )


def test_one_image_without_a_batch_is_refused() -> None:
    with pytest.raises(ModelError, match=r"received shape \(3, 8, 8\)"):
        check_images(torch.zeros(3, 8, 8), in_chans=3)


def test_images_in_bytes_are_refused_with_the_remedy() -> None:
    with pytest.raises(ModelError) as caught:
        check_images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), in_chans=3)
    assert str(caught.value) == (
        "expected images of a floating-point type, normalised\n"
        "received torch.uint8\n"
        "do this  convert them with images.float() / 255 and normalise them as in training"
    )
