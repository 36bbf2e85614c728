"""Everything there is a name for is listed, with its caption."""

from __future__ import annotations

from typing import Any

from leadline.data.load import list_datasets
from leadline.measure.catalogue import MEASUREMENTS
from leadline.models.create import describe_model, list_models
from leadline.recipes.catalogue import RECIPES


def test_every_name_is_listed_with_its_caption(leadline: Any) -> None:
    said = leadline("list")
    assert said.code == 0 and said.err == ""
    for name, entry in RECIPES.items():
        assert f"  {name:<16}{entry.caption}\n" in said.out
    for name in list_models():
        assert f"  {name:<16}{describe_model(name)}\n" in said.out
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
