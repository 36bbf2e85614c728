"""Everything there is a name for is listed, with its caption."""

from __future__ import annotations

import json
from typing import Any

import pytest

from leadline.cli.list import families
from leadline.cli.main import run
from leadline.data.load import list_datasets
from leadline.measure.catalogue import MEASUREMENTS
from leadline.models.create import list_models
from leadline.recipes.catalogue import RECIPES


def test_every_name_is_listed_with_its_caption(leadline: Any) -> None:
    said = leadline("list")
    assert said.code == 0 and said.err == ""
    for name, entry in RECIPES.items():
        assert f"  {name:<20}{entry.caption}\n" in said.out
    words = said.out.replace(",", " ").split()
    assert all(name in words for name in list_models())
    joined = " ".join(said.out.split())
    assert all(caption in joined for _, caption in families())
    assert ", ".join(list_datasets()) in said.out
    for entry in MEASUREMENTS:
        assert f"  {entry.name:<26}{entry.question}\n" in said.out


def test_json_has_exactly_these_keys(leadline: Any) -> None:
    said = leadline("list", "--json")
    assert said.last == {
        "recipes": {name: entry.caption for name, entry in RECIPES.items()},
        "models": list(list_models()),
        "datasets": list(list_datasets()),
        "measurements": {entry.name: entry.question for entry in MEASUREMENTS},
    }
    assert len(said.out.splitlines()) == 1


def test_one_model_is_shown_with_its_choices_and_what_its_layers_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["list", "vit_ti_16", "--image-size", "32", "--num-classes", "10"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("vit_ti_16  ViT-Ti/16, vision transformer: depth = blocks")
    assert "pooling             token   of token, mean" in said
    assert "patch_embed.proj" in said
    assert said.rstrip().endswith("kept in training, for one example")


def test_one_model_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "alexnet", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["summary"]["parameters"] == 61_100_840
    assert (told["smallest"], told["fixed"]) == (63, ["depth", "preactivation", "residual"])


def test_an_unknown_model_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "resnet_50"]) == 2
    assert "did you mean 'resnet50'" in capsys.readouterr().err
