"""From a Recipe and its data to a Setup: every section becomes the part it describes."""

from __future__ import annotations

from leadline.data.examples import Dataset, Examples
from leadline.data.loader import Loader
from leadline.models.create import create_model
from leadline.optim.optimizers import make_optimizer
from leadline.optim.schedules import make_schedule
from leadline.tasks.classification import Classification
from leadline.training.recipe import Recipe
from leadline.training.setup import Setup

EVALUATION_BATCH = 500
"""Examples a batch in evaluation, where no gradient is kept."""


def build_setup(recipe: Recipe, dataset: Dataset, *, device: str) -> Setup:
    """The Setup that a recipe describes, on the given data."""
    budget = recipe.budget
    channels, size, _ = dataset.shape
    task = Classification(
        dataset.num_classes, label_smoothing=recipe.regularisation.label_smoothing
    )
    batches = Loader(
        dataset.train,
        batch_size=budget.batch_size,
        seed=recipe.seed,
        mean=dataset.mean,
        std=dataset.std,
        device=device,
        augmentation=recipe.augmentation,
        num_classes=dataset.num_classes,
    )
    total_steps = budget.epochs * -(-len(batches) // budget.accumulate)
    return Setup(
        model=lambda: create_model(
            recipe.model, num_classes=dataset.num_classes, in_chans=channels, image_size=size
        ),
        batches=batches,
        loss=task.loss,
        optimizer=lambda model: make_optimizer(model, recipe.optimizer),
        schedule=lambda optimizer: make_schedule(
            optimizer, recipe.schedule, total_steps=total_steps
        ),
        epochs=budget.epochs,
        accumulate=budget.accumulate,
        clip_grad=budget.clip_grad,
        ema_decay=recipe.regularisation.ema_decay,
        seed=recipe.seed,
        task=task,
        validation=evaluation_batches(dataset, dataset.val, device=device)
        if len(dataset.val)
        else None,
        patience=budget.patience,
    )


def evaluation_batches(dataset: Dataset, examples: Examples, *, device: str) -> Loader:
    """One split of the data in its own order, normalised as in training, not augmented."""
    return Loader(
        examples,
        batch_size=min(EVALUATION_BATCH, len(examples)),
        seed=0,
        mean=dataset.mean,
        std=dataset.std,
        device=device,
        num_classes=dataset.num_classes,
        shuffle=False,
    )
