"""From a Recipe to a Setup: every section of it arrives where it is meant to."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from leadline.data.arrays import from_arrays
from leadline.data.augment import Augmentation
from leadline.data.examples import Dataset
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.models.create import create_model
from leadline.optim.optimizers import OptimizerOptions
from leadline.optim.schedules import ScheduleOptions
from leadline.training.build import EVALUATION_BATCH, build_setup, evaluation_batches
from leadline.training.recipe import Budget, Recipe, Regularisation

RECIPE = Recipe(
    data=DataOptions(data="arrays"),
    model=Architecture(model="mlp", depth=2, width=5),
    optimizer=OptimizerOptions(optimizer="adamw", lr=0.02, weight_decay=0.1),
    schedule=ScheduleOptions(schedule="linear", warmup=0.0),
    regularisation=Regularisation(label_smoothing=0.2, ema_decay=0.9),
    augmentation=Augmentation(flip=True),
    budget=Budget(epochs=3, batch_size=10, accumulate=2, patience=4, clip_grad=1.5),
    seed=7,
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """150 grey pictures in three classes: 108 to train on, 12 to validate, 30 to test."""
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (150, 6, 6), dtype=np.uint8)
    return from_arrays(pixels, [0, 1, 2] * 50)


def test_the_budget_and_the_rest_of_the_numbers_arrive(dataset: Dataset) -> None:
    setup = build_setup(RECIPE, dataset, device="cpu")
    found = {f.name: getattr(setup, f.name) for f in dataclasses.fields(setup)}
    expected = {"epochs": 3, "accumulate": 2, "patience": 4, "clip_grad": 1.5, "seed": 7}
    assert expected.items() <= found.items()
    assert setup.ema_decay == 0.9
    assert len(setup.batches) == 11  # type: ignore[arg-type]  # 108 examples in batches of 10


def test_the_model_is_the_architectures_for_these_data(dataset: Dataset) -> None:
    model = build_setup(RECIPE, dataset, device="cpu").model()
    same = create_model(RECIPE.model, num_classes=3, in_chans=1, image_size=6)
    assert str(model) == str(same)


def test_the_loss_is_cross_entropy_with_the_smoothing(dataset: Dataset) -> None:
    setup = build_setup(RECIPE, dataset, device="cpu")
    logits, targets = torch.randn(9, 3), torch.arange(9) % 3
    expected = functional.cross_entropy(logits, targets, label_smoothing=0.2)
    assert torch.allclose(setup.loss(logits, targets), expected)


def test_the_schedule_ends_with_the_last_step_of_the_last_epoch(dataset: Dataset) -> None:
    setup = build_setup(RECIPE, dataset, device="cpu")
    optimizer = setup.optimizer(setup.model())
    assert isinstance(optimizer, torch.optim.AdamW)
    assert setup.schedule is not None
    schedule = setup.schedule(optimizer)
    steps = 3 * 6  # 11 batches are six windows of two
    rates = []
    for _ in range(steps + 1):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.02)
    assert rates[steps - 1] == pytest.approx(0.02 / steps)
    assert rates[steps] == pytest.approx(0.0, abs=1e-12)


def collect(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(targets)


def test_training_batches_are_shuffled_by_the_seed_and_normalised(dataset: Dataset) -> None:
    plain = dataclasses.replace(RECIPE, augmentation=Augmentation())
    first, _ = collect(build_setup(plain, dataset, device="cpu").batches)
    again, _ = collect(build_setup(plain, dataset, device="cpu").batches)
    other, _ = collect(
        build_setup(dataclasses.replace(plain, seed=8), dataset, device="cpu").batches
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first.flatten(1).sum(1).sort().values, other.flatten(1).sum(1).sort().values)
    assert first.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert first.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)


def test_training_batches_are_augmented_and_validation_batches_are_not(dataset: Dataset) -> None:
    setup = build_setup(RECIPE, dataset, device="cpu")
    plain = dataclasses.replace(RECIPE, augmentation=Augmentation())
    straight = build_setup(plain, dataset, device="cpu")
    flipped, targets = collect(setup.batches)
    unflipped, same_targets = collect(straight.batches)
    assert torch.equal(targets, same_targets)
    turned = [not torch.equal(a, b) for a, b in zip(flipped, unflipped, strict=True)]
    assert 30 < sum(turned) < 78  # of 108, each with probability 1/2
    assert torch.equal(flipped[turned], unflipped[turned].flip(-1))
    assert torch.equal(collect(setup.validation)[0], collect(straight.validation)[0])


def test_evaluation_takes_a_split_in_its_own_order_every_time(dataset: Dataset) -> None:
    batches = evaluation_batches(dataset, dataset.test, device="cpu")
    images, targets = collect(batches)
    assert torch.equal(targets, dataset.test.targets)
    pixels = dataset.test.take(torch.arange(len(dataset.test))) / 255
    assert torch.allclose(images, (pixels - dataset.mean[0]) / dataset.std[0], atol=1e-5)
    assert torch.equal(collect(batches)[0], images)
    assert len(dataset.test) < EVALUATION_BATCH and len(batches) == 1
