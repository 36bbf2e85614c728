"""Tests of the sections on data, recipe and environment."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from leadline.core.config import to_plain
from leadline.data.examples import ArrayExamples, Dataset
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.report.settings import data_section, environment_section, options, recipe_section
from leadline.training.execution import Execution
from leadline.training.recipe import Budget, Recipe
from leadline.training.tune import Timing, Tuning

RECIPE = Recipe(
    data=DataOptions(data="a <folder>"),
    model=Architecture(model="mlp", depth=3),
    budget=Budget(epochs=7),
)


def leaves(plain: dict[str, Any]) -> int:
    """How many values a plain configuration has."""
    return sum(leaves(value) if isinstance(value, dict) else 1 for value in plain.values())


def test_every_value_of_the_recipe_is_an_option() -> None:
    assert len(options(RECIPE)) == leaves(to_plain(RECIPE))


def test_what_differs_from_the_defaults_is_found() -> None:
    changed = [(option.group, option.name) for option in options(RECIPE) if option.changed]
    assert changed == [
        ("data", "data"),
        ("model", "model"),
        ("model", "depth"),
        ("budget", "epochs"),
    ]


def test_the_recipe_is_told_with_changes_first_and_everything_folded() -> None:
    drawn = recipe_section(RECIPE)
    assert "<b>a &lt;folder&gt;</b>" in drawn
    assert drawn.index("<b>7</b>") < drawn.index("<details>")
    assert drawn.count("<tr>") == 2 + 4 + len(options(RECIPE))


def test_the_data_are_told_with_splits_scale_and_notes() -> None:
    images = torch.zeros(6, 3, 4, 5, dtype=torch.uint8)
    examples = ArrayExamples(images, torch.tensor([0, 1, 0, 1, 0, 1]))
    dataset = Dataset(
        name="<mine>",
        train=examples,
        val=examples.subset(torch.tensor([0])),
        test=examples.subset(torch.tensor([1, 2])),
        class_names=("a", "b"),
        notes=("skipped <one>.png",),
        mean=(0.5, 0.25, 0.125),
        std=(1.0, 1.0, 1.0),
    )
    drawn = data_section(dataset)
    assert "&lt;mine&gt;: colour images of 5&nbsp;×&nbsp;4 pixels in 2 classes" in drawn
    assert "(0.5, 0.25, 0.125)" in drawn
    assert "skipped &lt;one&gt;.png" in drawn
    rows = [">training</td>", ">6</td>", ">validation</td>", ">1</td>", ">test</td>", ">2</td>"]
    assert [drawn.index(cell) for cell in rows] == sorted(drawn.index(cell) for cell in rows)


def start(event: str = "start") -> dict[str, Any]:
    machine = {"cpu": "Some <CPU>", "cores": 2, "memory": 16_000_000_000, "amx": True}
    execution = dataclasses.asdict(Execution(threads=2))
    return {"event": event, "step": 0, "machine": machine, "execution": execution}


def test_the_environment_names_machine_versions_and_execution() -> None:
    drawn = environment_section([start()])
    assert "cpu, float32, contiguous, eager, 2 threads" in drawn
    assert "Some &lt;CPU&gt;" in drawn
    assert "16 GB" in drawn
    assert "AMX matrix units</td>" in drawn
    assert "resumed" not in drawn


def test_interruptions_are_told() -> None:
    drawn = environment_section([start(), start("resume"), start("resume")])
    assert "interrupted and resumed 2 times" in drawn


def test_what_tuning_measured_is_told_fastest_first() -> None:
    tuning = Tuning(
        execution=Execution(),
        examples_per_second=10,
        timings=(
            Timing(execution=Execution(layout="channels_last"), seconds=0.03),
            Timing(execution=Execution(precision="bfloat16"), seconds=None, remark="failed: <x>"),
            Timing(execution=Execution(), seconds=0.02),
        ),
    )
    drawn = environment_section([start(), {"event": "tuning", "step": 0, **to_plain(tuning)}])
    assert drawn.index("20.0 ms") < drawn.index("30.0 ms") < drawn.index("failed: &lt;x&gt;")
    assert "1.50 ×" in drawn


def test_a_journal_without_a_start_still_has_versions() -> None:
    assert "numpy" in environment_section([])
