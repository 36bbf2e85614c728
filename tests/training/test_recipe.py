"""Recipes: JSON there and back, and every complaint at once."""

from __future__ import annotations

import json

import pytest

from leadline.core.config import from_json, to_json
from leadline.core.errors import ConfigError
from leadline.data.options import DataOptions
from leadline.training.recipe import Budget, Recipe, Regularisation


def test_a_recipe_survives_json_unchanged() -> None:
    recipe = Recipe(
        data=DataOptions(data="digits", val_fraction=0.2),
        budget=Budget(epochs=3, minutes=1.5),
        regularisation=Regularisation(ema_decay=0.99),
        seed=7,
    )
    assert from_json(Recipe, to_json(recipe)) == recipe


def test_unknown_missing_and_wrong_values_are_told_together() -> None:
    plain = json.loads(to_json(Recipe(data=DataOptions(data="digits"))))
    plain["budgett"] = {}
    plain["optimizer"]["lr"] = "fast"
    plain["optimizer"]["optimizer"] = "adamm"
    del plain["data"]["data"]
    with pytest.raises(ConfigError) as caught:
        from_json(Recipe, json.dumps(plain), source="recipe.json")
    text = str(caught.value)
    assert "unknown key budgett (did you mean 'budget'?)" in text
    assert "optimizer.lr must be a number, received 'fast' (text)" in text
    assert "did you mean 'adam" in text
    assert "missing key data.data" in text
    assert len(caught.value.problems) == 4


def test_text_that_is_not_json_is_named_with_its_source() -> None:
    with pytest.raises(ConfigError, match=r"recipe\.json: .*line 1"):
        from_json(Recipe, "{", source="recipe.json")


def test_values_out_of_range_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Budget(epochs=0, batch_size=-1)
    assert caught.value.problems == (
        "epochs must be >= 1, received 0",
        "batch_size must be >= 1, received -1",
    )
