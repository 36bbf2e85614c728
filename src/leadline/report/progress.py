"""Progress: a bar when a person watches, one line per epoch when a file does.

The loss lives on the device, and reading it waits for the device. So the steps' losses are
gathered as they are, and read together at most `LOOKS` times a second: what the training loses by
being watched cannot be measured.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from torch import Tensor

from leadline.report.numbers import clock, count, number, percent
from leadline.report.terminal import Terminal
from leadline.training.batches import positioned
from leadline.training.setup import Setup
from leadline.training.step import Step
from leadline.training.train import Validation

LOOKS = 4.0
"""How often a second the losses are read and the bar is drawn, at most."""

PLAIN_INTERVAL = 60.0
"""Seconds after which a plain line comes although the epoch has not ended."""

MEMORY = 20.0
"""Seconds of the recent past that the rate and the remaining time are taken from."""


@dataclass(kw_only=True)
class _Epoch:
    """The losses of one epoch, as they are on the device, and what came at its end."""

    number: int
    losses: list[Tensor] = field(default_factory=list)
    total: float = 0.0
    read: int = 0
    validation: Validation | None = None

    def mean(self) -> float:
        """Mean loss so far; this waits for the device."""
        if self.losses:
            self.total += float(torch.stack(self.losses).sum())
            self.read += len(self.losses)
            self.losses.clear()
        return self.total / max(1, self.read)


class ProgressReader:
    """Reads the Steps of a training and shows how far it is; a context manager.

    with ProgressReader(setup, terminal=Terminal()) as reader:
        train_setup(setup, run=run, execution=execution, reader=reader)
    """

    def __init__(
        self, setup: Setup, *, terminal: Terminal, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._terminal = terminal
        self._clock = clock
        self._epochs = setup.epochs
        self._per_epoch = -(-len(positioned(setup.batches)) // setup.accumulate)
        self._metric = setup.task.main_metric if setup.task is not None else ""
        self._epoch = _Epoch(number=1)
        self._ended: list[_Epoch] = []
        self._latest: Validation | None = None
        self._examples = 0
        self._step = 0
        self._looked = self._printed = clock()
        self._past: deque[tuple[float, int, int]] = deque([(self._looked, -1, 0)])
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressReader:
        if self._terminal.console.is_terminal and not self._terminal.quiet:
            self._bar = _bar(self._terminal)
            self._task = self._bar.add_task("", total=self._epochs * self._per_epoch, says="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._step and not issubclass(kind or Exception, KeyboardInterrupt):
            self._look()
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, step: Step, validation: Validation | None) -> None:
        """Take a step; a `Reader` of `train_setup`."""
        if self._past[0][1] < 0:  # the steps before the first one seen were done by an earlier run
            self._past[0] = (self._past[0][0], step.index - 1, 0)
        if self._epoch.number != step.epoch:
            self._epoch = _Epoch(number=step.epoch)
        self._step = step.index
        self._examples += step.examples
        self._epoch.losses.append(step.loss)
        self._latest = validation or self._latest
        if step.ends_epoch:
            self._epoch.validation = validation
            self._ended.append(self._epoch)
        if self._clock() - self._looked >= 1 / LOOKS:
            self._look()

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the whole training."""
        return self._epochs * self._per_epoch

    def _look(self) -> None:
        """Read the losses and show them."""
        now = self._clock()
        self._looked = now
        self._past.append((now, self._step, self._examples))
        while len(self._past) > 2 and now - self._past[0][0] > MEMORY:
            self._past.popleft()
        if self._terminal.quiet:
            self._epoch.losses.clear()
        elif self._bar is not None and self._task is not None:
            says = "  ".join(self._facts(self._epoch, self._latest))
            done = min(self._step, self.total_steps)
            self._bar.update(self._task, completed=done, says=says, refresh=True)
        else:
            self._print_lines(now)
        self._ended.clear()

    def _print_lines(self, now: float) -> None:
        for ended in self._ended:
            facts = self._facts(ended, ended.validation)
            self._line(facts, now)
        if not self._ended and now - self._printed >= PLAIN_INTERVAL:
            done = f"step {count(self._step)}/{count(self.total_steps)}"
            facts = self._facts(self._epoch, None)
            self._line([facts[0], done, *facts[1:]], now)

    def _line(self, facts: list[str], now: float) -> None:
        self._printed = now
        self._terminal.console.print(
            "  ".join(facts), soft_wrap=True, highlight=False, markup=False
        )

    def _facts(self, epoch: _Epoch, validation: Validation | None) -> list[str]:
        facts = [f"epoch {epoch.number}/{self._epochs}", f"loss {number(epoch.mean())}"]
        value = validation.metrics.get(self._metric) if validation is not None else None
        if value is not None:
            share = self._metric == "accuracy"
            facts.append(f"val {self._metric} {percent(value) if share else number(value)}")
        then, step, examples = self._past[0]
        passed, steps = self._past[-1][0] - then, self._step - step
        if passed > 0 and steps > 0:
            left = max(0, self.total_steps - self._step) * passed / steps
            facts.append(f"{count(round((self._examples - examples) / passed))} examples/s")
            facts.append(f"ETA {clock(left)}")
        return facts


def _bar(terminal: Terminal) -> Progress:
    """A bar with the facts beside it, drawn only when told to."""
    return Progress(
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[says]}", markup=False),
        console=terminal.console,
        auto_refresh=False,
    )
