"""leadline list: the recipes, models, data sets and measurements there are."""

from __future__ import annotations

import json
from dataclasses import dataclass

from leadline.cli.options import parse
from leadline.data.load import list_datasets
from leadline.measure.catalogue import MEASUREMENTS
from leadline.models.create import describe_model, list_models
from leadline.recipes.catalogue import RECIPES


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """leadline list takes no options of its own."""


def run(words: list[str], *, as_json: bool) -> int:
    """Print the lists; the exit code."""
    parse(ListOptions, words, verb="list", caption=__doc__ or "")
    if as_json:
        print(
            json.dumps(
                {
                    "recipes": {name: entry.caption for name, entry in RECIPES.items()},
                    "models": list(list_models()),
                    "datasets": list(list_datasets()),
                    "measurements": {m.name: m.question for m in MEASUREMENTS},
                }
            )
        )
        return 0
    print("recipes (leadline train NAME)")
    for name, entry in RECIPES.items():
        print(f"  {name:<16}{entry.caption}")
    print("models (--model NAME)")
    for name in list_models():
        print(f"  {name:<16}{describe_model(name)}")
    print("data sets (--data NAME, or a path to a folder with a class per sub-folder)")
    print(f"  {', '.join(list_datasets())}")
    print("measurements (from leadline.measure; costs in docs/measure.md)")
    for measurement in MEASUREMENTS:
        print(f"  {measurement.name:<26}{measurement.question}")
    return 0
