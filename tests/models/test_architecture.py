"""Tests of what defines a model: ranges, choices that exclude each other, images that misfit."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pytest
import torch

from leadline.core.config import from_json
from leadline.core.errors import ConfigError
from leadline.models.architecture import (
    Architecture,
    Blueprint,
    Family,
    Images,
    fill_in,
    own_choices,
)
from leadline.models.create import FAMILIES, create_model, resolve
from leadline.models.resnet_cifar import ResNetCifarBlueprint


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
        "options",
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
    assert fill_in(
        Architecture(model="resnet32"), family=FAMILIES["resnet32"]
    ) == ResNetCifarBlueprint(
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
            "preactivation: mlp has False alone, received True; leave it out",
        ),
        (
            {"model": "convnet", "preactivation": True},
            "preactivation: convnet has False alone, received True; leave it out",
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchBlueprint(Blueprint):
    patch_size: int = 16
    counts: tuple[int, ...] = (2, 2)
    pooling: Literal["token", "mean"] = "token"


PATCHED = Family(
    caption="depth = layers, width = features",
    build=lambda blueprint, images: torch.nn.Identity(),
    defaults=PatchBlueprint(
        depth=2, width=8, norm="layer", activation="gelu", init="he", residual=True
    ),
    image_size=32,
)


def test_a_family_has_choices_of_its_own_as_options() -> None:
    assert own_choices(PATCHED) == {"patch_size": 16, "counts": (2, 2), "pooling": "token"}
    architecture = Architecture(options=("patch_size=4", "counts=3,1", "pooling=mean"))
    blueprint = fill_in(architecture, family=PATCHED)
    assert blueprint == dataclasses.replace(
        PATCHED.defaults, patch_size=4, counts=(3, 1), pooling="mean"
    )


def test_wrong_options_are_told_at_once_with_the_nearest() -> None:
    architecture = Architecture(
        model="patched", options=("patchsize=4", "counts=3,x", "pooling=meen")
    )
    with pytest.raises(ConfigError) as caught:
        fill_in(architecture, family=PATCHED)
    assert caught.value.problems == (
        "options: patched has no choice 'patchsize' (did you mean 'patch_size'?); its own are: "
        "patch_size, counts, pooling",
        "options: counts[1] must be a whole number, received 'x' (text)",
        "options: pooling must be one of 'token', 'mean', received 'meen' (did you mean 'mean'?)",
    )


def test_an_option_without_a_value_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        Architecture(options=("patch_size",))
    assert caught.value.problems == ("options: 'patch_size' is not of the form name=value",)
