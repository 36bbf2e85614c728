"""From data to a recipe: which architecture, how large, how long, and why, in one sentence.

What decides is the inductive bias that fits and what the examples can pay for: images share
structure across positions, so they get convolutions; small images keep their resolution in a
plain convolutional net, large ones are reduced early by a residual net; few examples get fewer
weights, more passes and more augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from leadline.data.augment import Augmentation
from leadline.data.examples import Dataset
from leadline.data.options import DataOptions
from leadline.models.architecture import Architecture
from leadline.optim.optimizers import OptimizerOptions
from leadline.optim.schedules import ScheduleOptions
from leadline.training.recipe import Budget, Recipe, Regularisation

SMALL_IMAGE = 64
"""Side in pixels up to which an image keeps its resolution in the first layers."""

DEFAULT_MINUTES = 8.0
"""The time a training of unknown data takes at most, unless told otherwise."""

STEPS_WANTED = 4000
"""Optimizer steps after which small data have been seen often enough to converge."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A recipe for some data, and the sentence that says why."""

    recipe: Recipe
    reason: str


def choose_recipe(dataset: Dataset, options: DataOptions) -> Choice:
    """A recipe that fits the data at hand."""
    examples = len(dataset.train)
    channels, size, _ = dataset.shape
    batch_size = _batch_size(examples)
    passes = round(STEPS_WANTED * batch_size / examples)
    epochs = max(15, min(100, passes))
    small = size <= SMALL_IMAGE
    recipe = Recipe(
        data=options,
        model=Architecture(model="convnet" if small else "resnet18"),
        optimizer=OptimizerOptions(optimizer="sgd", lr=0.2 * batch_size / 256, weight_decay=5e-4),
        schedule=ScheduleOptions(schedule="linear", warmup=0.2),
        regularisation=Regularisation(label_smoothing=0.1),
        augmentation=Augmentation(
            flip=True, crop=min(max(1, size // 8), size - 1), cutout=size // 4
        ),
        budget=Budget(epochs=epochs, batch_size=batch_size, minutes=DEFAULT_MINUTES),
    )
    kind = "grey" if channels == 1 else "colour"
    bias = (
        f"images of {size} × {size} pixels keep their resolution in a plain convolutional net"
        if small
        else f"images of {size} × {size} pixels are reduced early by a residual net"
    )
    reason = (
        f"{examples:,} {kind} training images, {dataset.num_classes} classes: "
        f"{recipe.model.model}, because {bias}"
    )
    return Choice(recipe=recipe, reason=reason)


def _batch_size(examples: int) -> int:
    """A power of two that gives at least about thirty steps an epoch, between 8 and 256."""
    wanted = max(8, min(256, examples // 30))
    return min(1 << (wanted.bit_length() - 1), max(2, examples))
