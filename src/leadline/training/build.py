"""From a Recipe and its data to a Setup: every section becomes the part it describes."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from leadline.data.examples import Dataset, Examples
from leadline.data.loader import Loader
from leadline.models.create import create_model
from leadline.models.image_model import ImageModel
from leadline.optim.depth import decay_by_depth
from leadline.optim.optimizers import make_optimizer
from leadline.optim.schedules import make_schedule
from leadline.tasks.classification import Classification
from leadline.training.recipe import Recipe
from leadline.training.setup import Setup
from leadline.training.transfer import read_start

EVALUATION_BATCH = 500
"""Examples a batch in evaluation, where no gradient is kept."""


def build_setup(recipe: Recipe, dataset: Dataset, *, device: str) -> Setup:
    """The Setup that a recipe describes, on the given data."""
    budget = recipe.budget
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
    start = read_start(recipe.transfer.pretrained) if recipe.transfer.pretrained else None
    total_steps = budget.epochs * -(-len(batches) // budget.accumulate)
    freezing = recipe.transfer.freezing(total_steps=total_steps)

    def build() -> nn.Module:
        model = _network(recipe, dataset)
        if start is not None:
            start.load_into(model, class_names=dataset.class_names)
        if freezing is not None and not freezing.thaw_steps:
            freezing.apply(model, step=0)  # so that the optimizer holds what learns alone
        return model

    def optimizer(model: nn.Module) -> Optimizer:
        made = make_optimizer(model, recipe.optimizer)
        if freezing is not None and freezing.thaw_steps:
            decay_by_depth(made, model, factor=1.0)  # a fused kernel wants one history in a group
        return made

    return Setup(
        model=build,
        batches=batches,
        loss=task.loss,
        optimizer=optimizer,
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
        freezing=freezing,
    )


def start_notes(recipe: Recipe, dataset: Dataset) -> tuple[str, ...]:
    """What a training begins from, and what of it is frozen: a sentence each, for people."""
    transfer, notes = recipe.transfer, []
    if not (transfer.pretrained or transfer.freeze):
        return ()
    model = _network(recipe, dataset)
    if transfer.pretrained:
        taken = read_start(transfer.pretrained).load_into(model, class_names=dataset.class_names)
        notes.append(f"begun from {transfer.pretrained}: {taken}")
    freezing = transfer.freezing(total_steps=1)
    if freezing is not None:
        parts = freezing.parts(model)
        held = sum(parameter.numel() for part in parts for parameter in part.parameters)
        whole = sum(parameter.numel() for parameter in model.parameters())
        until = f"thawing over {transfer.unfreeze:.0%} of the training" if transfer.unfreeze else ""
        notes.append(
            f"frozen up to {parts[-1].names[-1]}: {held:,} of {whole:,} parameters"
            f"{', ' * bool(until)}{until}"
        )
    return tuple(notes)


def _network(recipe: Recipe, dataset: Dataset) -> ImageModel:
    channels, size, _ = dataset.shape
    return create_model(
        recipe.model, num_classes=dataset.num_classes, in_chans=channels, image_size=size
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
