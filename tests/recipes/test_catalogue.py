"""The contract of every recipe, generated from the catalogue, and the way from a name to one."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from leadline.core.config import from_json, to_json
from leadline.core.errors import NonFiniteError, UnknownNameError
from leadline.data.examples import Dataset
from leadline.data.load import list_datasets
from leadline.models.create import resolve
from leadline.optim.schedules import schedule_factor
from leadline.recipes.catalogue import RECIPES, find_recipe, is_path
from leadline.training.build import build_setup
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.recipe import Recipe
from leadline.training.state import TrainingState

DIGITS = (1, 8)
SHAPES = {
    "digits": DIGITS,
    "digits_1001": DIGITS,
    "digits_1001_plain": DIGITS,
    "mnist": (1, 28),
    "fashion_mnist": (1, 28),
    "cifar10": (3, 32),
}
LEARNS_NOTHING = "digits_1001_plain"  # a control experiment
EVERY = pytest.mark.parametrize("name", RECIPES)


def small(name: str, noise: Callable[..., Dataset]) -> tuple[Recipe, Dataset]:
    """A recipe in small batches, and noise in the shape of its data: 72 training examples."""
    channels, size = SHAPES[name]
    recipe = RECIPES[name].recipe
    budget = dataclasses.replace(recipe.budget, batch_size=24)
    dataset = noise(examples=100, size=size, channels=channels)
    return dataclasses.replace(recipe, budget=budget), dataset


@EVERY
def test_a_recipe_is_named_after_its_file_and_says_its_command(name: str) -> None:
    module = importlib.import_module(f"leadline.recipes.{name}")
    assert RECIPES[name].recipe is module.RECIPE
    assert RECIPES[name].caption == module.__doc__.splitlines()[0]
    assert f"\nleadline train {name}\n" in module.__doc__


@EVERY
def test_a_recipe_comes_back_from_json(name: str) -> None:
    recipe = RECIPES[name].recipe
    assert from_json(Recipe, to_json(recipe)) == recipe


@EVERY
def test_a_recipe_names_data_and_a_model_that_there_are(name: str) -> None:
    recipe = RECIPES[name].recipe
    assert name.startswith(recipe.data.data)
    assert recipe.data.data in list_datasets()
    assert resolve(recipe.model).depth >= 1


@pytest.mark.parametrize("name", [name for name in RECIPES if name != LEARNS_NOTHING])
def test_the_first_steps_of_a_recipe_move_every_weight_and_stay_finite(
    name: str, noise: Callable[..., Dataset]
) -> None:
    recipe, dataset = small(name, noise)
    setup = build_setup(recipe, dataset, device="cpu")
    state = TrainingState(setup, Execution())
    before = [p.detach().clone() for p in state.model.parameters()]
    taken = itertools.islice(steps(setup, Execution(), state=state), 3)
    losses = [step.loss.item() for step in taken]
    assert losses[0] == pytest.approx(math.log(10), rel=0.35), "not the loss of a blind guess"
    assert all(map(math.isfinite, losses))
    trained = list(state.model.parameters())
    assert all(bool(p.detach().isfinite().all()) for p in trained)
    assert all(not torch.equal(p, q) for p, q in zip(trained, before, strict=True))


def test_without_residual_paths_1001_layers_do_not_take_their_first_step(
    noise: Callable[..., Dataset],
) -> None:
    recipe, dataset = small(LEARNS_NOTHING, noise)
    setup = build_setup(recipe, dataset, device="cpu")
    with pytest.raises(NonFiniteError, match="the loss is finite, but the gradient is not"):
        next(steps(setup, Execution()))


@EVERY
def test_the_rate_of_a_recipe_ends_near_zero(name: str) -> None:
    schedule = RECIPES[name].recipe.schedule
    assert schedule_factor(schedule, 999, total_steps=1000) < 0.01
    assert max(schedule_factor(schedule, t, total_steps=1000) for t in range(1000)) <= 1.0


def test_every_recipe_has_a_shape_here() -> None:
    assert SHAPES.keys() == RECIPES.keys()


@EVERY
def test_a_recipe_is_found_by_its_name(name: str) -> None:
    assert find_recipe(name) is RECIPES[name].recipe


def test_an_unknown_name_is_met_with_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match=r"'cifar' \(did you mean 'cifar10'\?\)"):
        find_recipe("cifar")


def test_a_name_stays_a_name_whatever_lies_around(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "pictures").mkdir()
    assert not is_path("digits")
    assert is_path("./digits")
    assert is_path("pictures")
    assert is_path("a/b") and is_path("../x") and is_path(str(tmp_path / "gone"))
    assert not is_path("picturs")
