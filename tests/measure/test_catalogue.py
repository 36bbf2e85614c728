"""Tests of the catalogue: every measurement is in it, and every entry leads to one."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from leadline.core.errors import ConfigError
from leadline.measure.catalogue import MEASUREMENTS, find_measurement


def test_every_entry_is_a_function_of_two_positional_arguments_at_most() -> None:
    for entry in MEASUREMENTS:
        parameters = inspect.signature(entry.function).parameters.values()
        positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert len(positional) == 2, entry.name
        assert positional[0].name == "model", entry.name
        assert ("loss" in {p.name for p in parameters}) == (entry.needs == "loss"), entry.name


def test_no_name_comes_twice_and_every_question_is_one() -> None:
    names = [entry.name for entry in MEASUREMENTS]
    assert len(set(names)) == len(names)
    assert all(entry.cost for entry in MEASUREMENTS)
    assert all(entry.question[-1] in "?." for entry in MEASUREMENTS)


def test_an_unknown_name_gets_the_nearest_one() -> None:
    assert find_measurement("units").needs == "inputs"
    with pytest.raises(ConfigError, match="gradient_flow"):
        find_measurement("gradient_flwo")


def test_the_page_lists_every_measurement_with_its_cost() -> None:
    page = (Path(__file__).parents[2] / "docs" / "measure.md").read_text(encoding="utf-8")
    for entry in MEASUREMENTS:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{entry.name}` |"))
        assert entry.question in row and row.endswith(f"| {entry.cost} |"), entry.name
