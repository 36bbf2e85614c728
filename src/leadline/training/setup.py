"""Setup: a training, built: a model factory, batches, a loss, an optimizer factory.

A Recipe becomes a Setup (`leadline.training.build`); a user's own code makes one directly. The
model and the optimizer are factories, so that a trial, a tuning or a resume can start afresh
without touching what another one holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from leadline.core.config import check, in_range
from leadline.optim.freezing import Freezing
from leadline.tasks.task import Task

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Setup:
    """A training that can be started any number of times.

    Each iteration over `batches` is one epoch of `(inputs, targets)`; `loss` takes
    `(outputs, targets)` and returns the mean over the batch. One optimizer step uses `accumulate`
    batches. `schedule` is stepped once per optimizer step. `freezing` says which parts of the model
    keep their weights, for good or at first; what will thaw must be in the optimizer, each
    part in groups of its own.

    >>> import torch
    >>> data = [(torch.ones(4, 2), torch.ones(4, 1))]
    >>> setup = Setup(
    ...     model=lambda: nn.Linear(2, 1),
    ...     batches=data,
    ...     loss=nn.functional.mse_loss,
    ...     optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    ... )
    >>> setup.epochs
    1
    """

    model: Callable[[], nn.Module]
    batches: Batches
    loss: Callable[[Any, Any], Tensor]
    optimizer: Callable[[nn.Module], Optimizer]
    schedule: Callable[[Optimizer], LRScheduler] | None = None
    epochs: int = 1
    accumulate: int = 1
    clip_grad: float = 0.0
    ema_decay: float = 0.0
    seed: int = 0
    task: Task | None = None
    validation: Batches | None = None
    patience: int = 0
    freezing: Freezing | None = None

    def __post_init__(self) -> None:
        check(
            self,
            in_range("epochs", self.epochs, 1),
            in_range("accumulate", self.accumulate, 1),
            in_range("clip_grad", self.clip_grad, 0),
            in_range("ema_decay", self.ema_decay, 0, 1, open_high=True),
            in_range("patience", self.patience, 0),
            "patience needs validation batches and a task that says which figure is better"
            if self.patience and (self.validation is None or self.task is None)
            else None,
        )
