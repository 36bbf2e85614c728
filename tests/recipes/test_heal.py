"""Tests of a recipe healed of what was proven, and of what it cannot say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from leadline.core.errors import ConfigError
from leadline.data.examples import Dataset
from leadline.data.options import DataOptions
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.finding import Finding, Severity
from leadline.doctor.remedy import Remedy
from leadline.models.architecture import Architecture
from leadline.recipes.heal import heal_recipe, recipe_diff, with_settings
from leadline.training.recipe import Budget, Recipe

RECIPE = Recipe(data=DataOptions(data="digits"), model=Architecture(model="mlp", width=8))


@pytest.fixture(scope="module")
def dataset(noise: Callable[..., Dataset]) -> Dataset:
    return noise(examples=256, size=8)


def finding(
    cause: str = "lr_too_high",
    *,
    settings: dict[str, Any] | None = None,
    severity: Severity = "error",
    proven: bool = True,
) -> Finding:
    change = None if settings is None else Remedy(title="change", settings=settings)
    return Finding(
        cause=cause,
        severity=severity,
        summary="s",
        evidence=(),
        remedy="r",
        proven=proven,
        change=change,
    )


def diagnosis(*findings: Finding) -> Diagnosis:
    return Diagnosis(
        model="MLP",
        problem="one of 10 classes",
        measured="wrong answers",
        findings=findings,
        ruled_out=(),
        baseline=None,
        limits=(),
        steps=0,
        seconds=0.0,
        allowance="none",
        share=None,
    )


def test_proven_remedies_are_set_in_rank_order(dataset: Dataset) -> None:
    activation = finding("hidden_activation_wrong", settings={"model.activation": "relu"})
    rate = finding(settings={"optimizer.lr": 0.01})
    healed = heal_recipe(RECIPE, diagnosis(activation, rate), dataset=dataset)
    assert healed.recipe.model.activation == "relu"
    assert healed.recipe.optimizer.lr == 0.01
    assert healed.applied == (activation, rate) and healed.left == ()
    assert healed.paths == ("model.activation", "optimizer.lr")


def test_what_is_not_proven_or_only_a_note_is_no_remedy(dataset: Dataset) -> None:
    doubtful = finding(settings={"optimizer.lr": 0.01}, proven=False)
    note = finding("lr_too_low", settings={"optimizer.lr": 1.0}, severity="note")
    healed = heal_recipe(RECIPE, diagnosis(doubtful, note), dataset=dataset)
    assert healed.recipe == RECIPE and healed.applied == () and healed.left == ()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (None, "no value of a recipe"),
        ({}, "no value of a recipe"),
        ({"optimizer.lr": 0.1}, "says it already"),
        ({"optimizer.rate": 0.5}, "unknown key optimizer.rate"),
        ({"optimizer.lr": -1.0}, "lr must be > 0"),
        ({"model.model": "resnet2O"}, "resnet2O"),
    ],
)
def test_what_a_recipe_cannot_say_is_left_with_its_reason(
    dataset: Dataset, settings: dict[str, Any] | None, reason: str
) -> None:
    healed = heal_recipe(RECIPE, diagnosis(finding(settings=settings)), dataset=dataset)
    assert healed.recipe == RECIPE
    ((_, said),) = healed.left
    assert reason in said


def test_a_remedy_that_one_value_of_does_not_fit_is_left_out_whole(dataset: Dataset) -> None:
    both = finding(settings={"optimizer.lr": 0.01, "budget.epochs": 0})
    healed = heal_recipe(RECIPE, diagnosis(both), dataset=dataset)
    assert healed.recipe == RECIPE and len(healed.left) == 1


@pytest.mark.parametrize(
    ("settings", "keeps"),
    [
        ({"optimizer.lr": 0.01}, True),
        ({"budget.clip_grad": 1.0, "budget.epochs": 40}, True),
        ({"budget.batch_size": 32}, False),
        ({"model.activation": "gelu", "optimizer.lr": 0.01}, False),
    ],
)
def test_weights_are_kept_where_neither_network_nor_batches_change(
    dataset: Dataset, settings: dict[str, Any], keeps: bool
) -> None:
    healed = heal_recipe(RECIPE, diagnosis(finding(settings=settings)), dataset=dataset)
    assert healed.applied and healed.keeps_weights is keeps


def test_a_wrong_path_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"unknown key optimizer\.name"):
        with_settings(RECIPE, {"optimizer.name": "adamw"})
    with pytest.raises(ConfigError, match="unknown key speed"):
        with_settings(RECIPE, {"speed.limit": 3})


def test_the_difference_names_the_section_of_each_line_once() -> None:
    settings = {"optimizer.lr": 0.5, "optimizer.momentum": 0.8, "budget.epochs": 3, "seed": 7}
    lines = recipe_diff(RECIPE, with_settings(RECIPE, settings))
    assert lines == (
        '  "optimizer": {',
        '-     "lr": 0.1,',
        '+     "lr": 0.5,',
        '-     "momentum": 0.9,',
        '+     "momentum": 0.8,',
        '  "budget": {',
        f'-     "epochs": {Budget().epochs},',
        '+     "epochs": 3,',
        '-   "seed": 0',
        '+   "seed": 7',
    )
    assert recipe_diff(RECIPE, RECIPE) == ()
