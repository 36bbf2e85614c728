"""Everything of a training that changes from step to step, in one list.

Exact resume rests on this list: what is in it is saved and restored whole, and nothing else may
influence a step. N + M steps then equal N, kill, resume, M, bit for bit on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from leadline.core.seeds import (
    RandomState,
    capture_random_state,
    restore_random_state,
    seed_everything,
)
from leadline.optim.average import Average
from leadline.optim.optimizers import match_layout
from leadline.training.batches import positioned
from leadline.training.execution import Execution
from leadline.training.setup import Setup


@dataclass(kw_only=True)
class Counters:
    """Where a training stands: steps and epochs done, examples seen, seconds spent."""

    step: int = 0
    epoch: int = 0
    examples: int = 0
    seconds: float = 0.0


@dataclass(kw_only=True)
class Best:
    """The best validation so far, with the weights that gave it (only kept under patience)."""

    value: float | None = None
    epoch: int = 0
    weights: dict[str, Tensor] | None = None


class TrainingState:
    """A Setup under way: model, optimizer, schedule, average, batches, counters, random streams."""

    def __init__(self, setup: Setup, execution: Execution) -> None:
        seed_everything(setup.seed)
        self.setup = setup
        self.execution = execution
        self.model = execution.place(setup.model())
        self.forward = execution.forward(self.model)
        self.optimizer = setup.optimizer(self.model)
        self.schedule = setup.schedule(self.optimizer) if setup.schedule else None
        self.average = Average(self.model, decay=setup.ema_decay) if setup.ema_decay else None
        self.batches = positioned(setup.batches)
        self.counters = Counters()
        self.best = Best()

    def enter_training(self) -> None:
        """The model in training mode; what is frozen at this step frozen, and the rest free."""
        self.model.train()
        if self.setup.freezing is not None:
            self.setup.freezing.apply(self.model, step=self.counters.step)

    @property
    def evaluated_model(self) -> nn.Module:
        """The weights a user gets: the running average where there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def finished(self) -> bool:
        """Whether every epoch is done, or patience ran out."""
        waited = self.counters.epoch - self.best.epoch
        out_of_patience = 0 < self.setup.patience <= waited and self.best.value is not None
        return self.counters.epoch >= self.setup.epochs or out_of_patience

    def state_dict(self) -> dict[str, Any]:
        """Every stateful part, by name: tensors, numbers and text in nested dictionaries."""
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "average": self.average.state_dict() if self.average else None,
            "batches": self.batches.state_dict(),
            "counters": dict(vars(self.counters)),
            "best": dict(vars(self.best)),
            "random": capture_random_state().state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put every stateful part where `state_dict` found it."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        match_layout(self.optimizer)
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.batches.load_state_dict(state["batches"])
        self.counters = Counters(**state["counters"])
        self.best = Best(**state["best"])
        restore_random_state(RandomState.from_state_dict(state["random"]))
