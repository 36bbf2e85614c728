"""How a published program becomes a Setup: its examples in batches, some perhaps held out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import OptimizerFactory
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data import Examples, Shuffled, loader
from leadline.training.execution import Execution
from leadline.training.setup import Setup

PICTURES = Execution(precision="bfloat16", layout="channels_last", threads=1)


def program(
    seed: int,
    *,
    model: Callable[[], nn.Module],
    examples: Examples,
    loss: Callable[[Any, Any], Tensor],
    optimizer: OptimizerFactory,
    batch_size: int,
    epochs: int,
    validation: float = 0.0,
    user_loader: bool = False,
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
) -> Setup:
    """A Setup; `validation` is the share of the examples, the last ones, that are held out.

    `user_loader` gives the batches of a DataLoader, as most users of PyTorch have them.
    """
    kept = len(examples) - round(validation * len(examples))
    train, held_out = examples[:kept], examples[kept:]
    batches = (
        loader(train, batch_size=batch_size)
        if user_loader
        else Shuffled(train, batch_size=batch_size)
    )
    return Setup(
        model=model,
        batches=batches,
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        epochs=epochs,
        seed=seed,
        validation=Shuffled(held_out, batch_size=max(batch_size, 100), shuffle=False)
        if len(held_out)
        else None,
    )
