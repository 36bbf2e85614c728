"""A healthy program in parts, each of which a fault can exchange, and the forms it is run in.

`setup(seed)` is the program as a Setup; `loops.py` runs the same parts in plain PyTorch loops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from case import Case, Subject
from healthy_data import Material
from score import Score
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, TensorDataset

from data import Examples, Shuffled, loader
from leadline.training.execution import Execution
from leadline.training.setup import Setup

Kind = Literal["classes", "yes_or_no", "several", "numbers", "text", "padded_text", "probabilities"]
"""What the targets are: class numbers, one 0 or 1, several of them, numbers to come near to, next
symbols, those of padded lines, or one-hot rows against probabilities."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """Everything a training is made of. `model` takes no argument, or its own choices by name.

    `optimizer` is a class of torch.optim and `settings` what it takes; `held` are the parameters
    it is given. `schedule` takes the optimizer and the number of all its steps. `feed` makes
    batches of the training part in a way of its own, for Setup and loop alike.
    """

    name: str
    kind: Kind
    data: Callable[[], Material]
    model: Callable[..., nn.Module]
    loss: Callable[[Any, Any], Tensor]
    score: Callable[[Examples], Score]
    metric: str
    higher_is_better: bool
    optimizer: type[Optimizer] = torch.optim.Adam
    settings: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-3})
    held: Callable[[nn.Module], Iterable[Any]] = lambda model: model.parameters()
    schedule: Callable[[Optimizer, int], LRScheduler] | None = None
    batch_size: int = 64
    epochs: int = 5
    accumulate: int = 1
    clip_grad: float = 0.0
    validated: bool = True
    shuffled: bool = True
    user_loader: bool = False
    feed: Callable[[Program], Iterable[Any]] | None = None
    execution: Execution = field(default_factory=lambda: Execution(threads=1))

    def but(self, **changes: Any) -> Program:
        """The same with other parts."""
        return dataclasses.replace(self, **changes)

    def set(self, **settings: Any) -> Program:
        """The same with other settings of the optimizer."""
        return self.but(settings=dict(self.settings) | settings)

    def times_lr(self, factor: float) -> Program:
        """The same with the learning rate times `factor`."""
        return self.set(lr=self.settings["lr"] * factor)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        batches = -(-len(self.data().train) // self.batch_size)
        return -(-batches // self.accumulate)

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """The optimizer on the parameters it is to hold."""
        return self.optimizer(self.held(model), **self.settings)

    def make_schedule(self, optimizer: Optimizer) -> LRScheduler:
        """The schedule for the whole training."""
        assert self.schedule is not None, "asked for where there is one"
        return self.schedule(optimizer, self.epochs * self.steps_per_epoch)

    def batches(self, part: Examples, *, shuffled: bool | None = None) -> Iterable[Any]:
        """Batches for a Setup."""
        if self.user_loader and shuffled is None and self.shuffled:
            return loader(part, batch_size=self.batch_size)
        mixed = self.shuffled if shuffled is None else shuffled
        return Shuffled(part, batch_size=self.batch_size, shuffle=mixed)

    def loader(self, part: Examples | None = None, *, shuffle: bool | None = None) -> Iterable[Any]:
        """Batches as a user of PyTorch makes them; of the training part if none is given."""
        if part is None and self.feed is not None:
            return self.feed(self)
        part = self.data().train if part is None else part
        return DataLoader(
            TensorDataset(part.inputs, part.targets),
            batch_size=self.batch_size,
            shuffle=self.shuffled if shuffle is None else shuffle,
        )

    def setup(self, seed: int) -> Setup:
        """The program as a Setup."""
        material = self.data()
        return Setup(
            model=self.model,
            batches=self.batches(material.train) if self.feed is None else self.feed(self),
            loss=self.loss,
            optimizer=self.make_optimizer,
            schedule=self.make_schedule if self.schedule else None,
            epochs=self.epochs,
            accumulate=self.accumulate,
            clip_grad=self.clip_grad,
            seed=seed,
            validation=self.batches(material.validation, shuffled=False)
            if self.validated
            else None,
        )

    def judge(self, model: nn.Module) -> float:
        """The score of a trained model on the test part."""
        test = self.data().test
        # A copy: a model may write into what it is given.
        return self.score(Examples(inputs=test.inputs.clone(), targets=test.targets))(model)


def healthy_case(program: Program, subject: Callable[[int], Subject], *, form: str) -> Case:
    """A control, `no_fault_control`: nothing is wrong with it, and there is nothing to fix."""
    return Case(
        name=f"no_fault_control/{program.name}{form}",
        origin="healthy",
        faults=(),
        buggy=subject,
        fixed=None,
        score=program.judge,
        higher_is_better=program.higher_is_better,
        metric=program.metric,
        execution=program.execution,
    )
