"""A recipe that fits the data: the model by the size, the batches by the number, and why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leadline.data.examples import Dataset
from leadline.data.options import DataOptions
from leadline.recipes.choose import DEFAULT_MINUTES, SMALL_IMAGE, choose_recipe
from leadline.training.build import build_setup

OPTIONS = DataOptions(data="some/folder", image_size=16)


@pytest.mark.parametrize(
    ("size", "model", "bias"),
    [
        (8, "convnet", "keep their resolution in a plain convolutional net"),
        (SMALL_IMAGE, "convnet", "keep their resolution in a plain convolutional net"),
        (SMALL_IMAGE + 1, "resnet18", "are reduced early by a residual net"),
        (96, "resnet18", "are reduced early by a residual net"),
    ],
)
def test_the_size_of_the_images_decides_the_model_and_the_sentence_says_so(
    size: int, model: str, bias: str, noise: Callable[..., Dataset]
) -> None:
    choice = choose_recipe(noise(examples=40, size=size, channels=3, classes=2), OPTIONS)
    assert choice.recipe.model.model == model
    assert choice.reason == (
        f"28 colour training images, 2 classes: {model}, because images of {size} × {size} "
        f"pixels {bias}"
    )


def test_grey_images_are_called_grey(noise: Callable[..., Dataset]) -> None:
    reason = choose_recipe(noise(examples=50, size=8, classes=5), OPTIONS).reason
    assert reason.startswith("35 grey training images, 5 classes: ")


def test_the_data_stay_as_they_were_asked_for(noise: Callable[..., Dataset]) -> None:
    recipe = choose_recipe(noise(examples=50, size=8, classes=5), OPTIONS).recipe
    assert recipe.data == OPTIONS
    assert recipe.budget.minutes == DEFAULT_MINUTES


@pytest.mark.parametrize("examples", [12, 60, 500, 3000, 20000])
def test_few_examples_get_small_batches_and_many_passes(
    examples: int, noise: Callable[..., Dataset]
) -> None:
    dataset = noise(examples=examples, size=2, classes=2)
    budget = choose_recipe(dataset, OPTIONS).recipe.budget
    count = len(dataset.train)
    assert 2 <= budget.batch_size <= min(256, count)
    assert budget.batch_size & (budget.batch_size - 1) == 0, "a power of two"
    assert 15 <= budget.epochs <= 100
    if 8 * 30 <= count <= 256 * 30:
        assert 30 <= count / budget.batch_size < 61


def test_the_rate_grows_with_the_batch(noise: Callable[..., Dataset]) -> None:
    rates = {}
    for examples in (100, 20000):
        recipe = choose_recipe(noise(examples=examples, size=2, classes=2), OPTIONS).recipe
        rates[recipe.budget.batch_size] = recipe.optimizer.lr
    (small, low), (large, high) = sorted(rates.items())
    assert high / low == pytest.approx(large / small)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 31, 33, 65])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_chosen_can_be_built_for_images_of_any_size(
    size: int, channels: int, noise: Callable[..., Dataset]
) -> None:
    dataset = noise(examples=40, size=size, channels=channels, classes=2)
    recipe = choose_recipe(dataset, OPTIONS).recipe
    setup = build_setup(recipe, dataset, device="cpu")
    inputs, targets = next(iter(setup.batches))
    loss = setup.loss(setup.model()(inputs), targets)
    assert bool(loss.isfinite())
