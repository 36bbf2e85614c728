"""Training a Setup into a Run: the loop's Steps, written down, evaluated, saved, resumed.

The one place where a training meets the disk. Saves happen at the end of an epoch, at least every
`SAVE_INTERVAL` seconds, when a signal asks, and at the end; each is of the whole state, taken
between two steps, so that going on from it gives the weights an unbroken run would have given.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from leadline.core.devices import describe_machine
from leadline.training.checkpoint import Found, newest_checkpoint, save_checkpoint
from leadline.training.evaluate import evaluate
from leadline.training.execution import Execution
from leadline.training.journal import Journal, cut_journal
from leadline.training.loop import steps
from leadline.training.run import Run
from leadline.training.setup import Setup
from leadline.training.signals import Stopped, StopRequests
from leadline.training.state import TrainingState
from leadline.training.step import Step

SAVE_INTERVAL = 60.0
"""Seconds between two saves, at most: what a power failure can cost."""

EPOCH_SAVE_INTERVAL = 10.0
"""Seconds that must have passed before the end of an epoch saves as well."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """What the held-out split said at the end of an epoch."""

    epoch: int
    step: int
    metrics: dict[str, float]


Reader = Callable[[Step, Validation | None], None]
"""Something that looks at each step, a progress bar say."""


class Observer(Protocol):
    """Something that looks at each step and has rows of its own for the journal, a watch say."""

    def step(self, loss: Tensor) -> None:
        """A step is done, with this loss."""

    def rows(self) -> list[dict[str, Any]]:
        """The rows gathered since the last call, each with its `event` and `step`."""

    def close(self) -> None:
        """The training has ended, or stopped."""


def train_setup(
    setup: Setup,
    *,
    run: Run,
    execution: Execution,
    reader: Reader | None = None,
    observe: Callable[[TrainingState], Observer] | None = None,
    save_interval: float = SAVE_INTERVAL,
) -> TrainingState:
    """Train to the end inside a locked run folder, from its newest checkpoint where it has one.

    `observe` makes an Observer of the training as it stands before its first step.
    Raises `Stopped` when a signal asked to stop, after saving.
    """
    execution = execution.settled
    state = TrainingState(setup, execution)
    found = newest_checkpoint(run.checkpoints)
    if found is not None:
        state.load_state_dict(found.state)
        for name in found.damaged:  # it must not take the place of a valid one
            (run.checkpoints / name).rename(run.checkpoints / f"{name}.damaged")
    cut_journal(run.journal, step=state.counters.step)
    observer = observe(state) if observe is not None else None
    journal = Journal(run.journal, more=observer.rows if observer is not None else None)
    _say_start(journal, state, found)
    saver = _Saver(run.checkpoints, interval=save_interval)
    try:
        with execution.threads_scope(), StopRequests() as requests:
            for step in steps(setup, execution, state=state):
                if observer is not None:
                    observer.step(step.loss)
                journal.step(step)
                validation = _validate(state, step, journal) if step.ends_epoch else None
                if reader is not None:
                    reader(step, validation)
                asked = requests.number
                if asked is not None or saver.due(ends_epoch=step.ends_epoch):
                    journal.flush()
                    saver.save(state)
                if asked is not None:
                    journal.event("stopped", step=step.index, signal=asked)
                    raise Stopped(asked, folder=run.folder)
            journal.flush()
            saver.save(state)
            if requests.number is not None:  # it came during the last save
                journal.event("stopped", step=state.counters.step, signal=requests.number)
                raise Stopped(requests.number, folder=run.folder)
    finally:
        if observer is not None:
            observer.close()
        journal.flush()
    if state.best.weights is not None:
        state.evaluated_model.load_state_dict(state.best.weights)
    return state


class _Saver:
    def __init__(self, folder: Path, *, interval: float) -> None:
        self._folder = folder
        self._interval = interval
        self._last = time.monotonic()
        self._step = -1

    def due(self, *, ends_epoch: bool) -> bool:
        passed = time.monotonic() - self._last
        wanted = min(self._interval, EPOCH_SAVE_INTERVAL) if ends_epoch else self._interval
        return passed >= wanted

    def save(self, state: TrainingState) -> None:
        if state.counters.step != self._step:
            save_checkpoint(self._folder, state.state_dict(), step=state.counters.step)
        self._step = state.counters.step
        self._last = time.monotonic()


def _validate(state: TrainingState, step: Step, journal: Journal) -> Validation | None:
    setup = state.setup
    if setup.task is None or setup.validation is None:
        return None
    begun = time.perf_counter()
    metrics = evaluate(
        state.evaluated_model, setup.validation, task=setup.task, execution=state.execution
    )
    value = metrics[setup.task.main_metric]
    sign = 1 if setup.task.higher_is_better else -1
    best = state.best
    if setup.patience and (best.value is None or sign * value > sign * best.value):
        weights = state.evaluated_model.state_dict()
        best.value, best.epoch = value, state.counters.epoch
        best.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
    state.counters.seconds += time.perf_counter() - begun
    journal.event("validation", step=step.index, epoch=step.epoch, metrics=metrics)
    return Validation(epoch=step.epoch, step=step.index, metrics=metrics)


def _say_start(journal: Journal, state: TrainingState, found: Found | None) -> None:
    journal.event(
        "start" if found is None else "resume",
        step=state.counters.step,
        checkpoint=found.path.name if found else None,
        damaged=list(found.damaged) if found else [],
        execution=dataclasses.asdict(state.execution),
        machine=dataclasses.asdict(describe_machine()),
        parameters=sum(p.numel() for p in state.model.parameters()),
    )
