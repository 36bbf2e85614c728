"""Watch: looks on while any loop trains, layer by layer, for about a hundredth of the time.

    watch = leadline.watch(model, optimizer)
    for inputs, targets in loader:
        ...
        watch.step(loss)

Most steps cost a copy of the loss, a microsecond. Now and then one step is sampled (`measure/
streaming`): hooks are put on before it and taken off after it, and its numbers stay on the device
until somebody reads them. How often is decided by what a sample was measured to cost. The training
is bit for bit what it would be without.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.doctor.cadence import BUDGET, UNSEEN, Cadence
from leadline.doctor.history import KeptSamples, WatchHistory
from leadline.doctor.losses import Losses
from leadline.doctor.tensorboard import EventFiles
from leadline.measure.batch import trainable
from leadline.measure.watching.step_sample import COLUMNS
from leadline.measure.watching.streaming import StepSampler

DIGITS = 4
"""Significant digits of a number in the journal."""

EVENT_INTERVAL = 10.0
"""Seconds between two writes of event files."""


def watch(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    every: int | None = None,
    budget: float = BUDGET,
    tensorboard: Path | str | None = None,
) -> Watch:
    """Look on while `model` trains: call `step(loss)` on what this returns, once per update.

    Give the model as the loop calls it, compiled or wrapped, and its optimizer or optimizers; any
    `nn.Module`, any loop: accumulated gradients, autocast, a GradScaler that skips steps, a layer
    that is added later. `every` samples a step in so many instead of as many as keep the time under
    `budget` (a share); the steps 1, 2, 4 and 8 are sampled in any case. `tensorboard` is a folder
    for event files (the extra 'tensorboard').

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with watch(model, optimizer) as observed:
    ...     for _ in range(10):
    ...         optimizer.zero_grad()
    ...         loss = model(torch.ones(4, 2)).square().mean()
    ...         loss.backward()
    ...         optimizer.step()
    ...         observed.step(loss)
    >>> observed.history.steps[:4], observed.profile().layers
    ((1, 2, 4, 8), ('0', '1', '2'))
    >>> observed.history.losses.mean[9] < observed.history.losses.mean[0]
    True

    Cost: a microsecond per step, and samples worth `budget` of the time; in a sampled step one copy
    of the weights. How to read it: see the `reading` of the Profiles.

    Raises MeasurementError for a model without parameters that learn, or for something that is no
    optimizer; ConfigError for `every` or `budget` out of range, and where TensorBoard is missing.
    """
    return Watch(model, optimizer, every=every, budget=budget, tensorboard=tensorboard)


class Watch:
    """Gathers what `leadline.watch` describes; a context manager that closes itself.

    `start` is the number of steps that were done before, in a training that is resumed. `optimizer`
    may be assigned anew when the loop makes another one.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        every: int | None = None,
        budget: float = BUDGET,
        tensorboard: Path | str | None = None,
        start: int = 0,
    ) -> None:
        self._sampler: StepSampler | None = None
        _check(model, optimizer)
        self.optimizer = optimizer
        self._model = model
        self._start = start
        self._done = 0  # steps since the start
        self._cadence = Cadence(every=every, budget=budget)
        self._losses = Losses(start=start)
        self._samples = KeptSamples()
        self._told = -1  # the latest step that `rows` gave
        self._events = EventFiles(tensorboard) if tensorboard is not None else None
        self._written = time.monotonic()
        self._in_events = -1  # the latest step in the event files
        self._closed = False
        self._spent = 0.0
        self._begun = time.perf_counter()
        self._begin_sample()

    def step(self, loss: Tensor | float | None = None) -> None:
        """Say that a step is done: after `optimizer.step()`, with the loss it was made from.

        The loss is copied, never read. Once per update: with accumulated gradients, after all of
        its micro-batches.
        """
        if self._closed:
            raise MeasurementError(
                expected="a watch that is open",
                received="a step after close()",
                remedy="call leadline.watch(model, optimizer) again to watch further steps",
            )
        if loss is not None:
            self._losses.append(loss)
        self._done += 1
        if self._sampler is not None:
            self._end_sample(self._sampler, loss)
        if self._done + 1 == self._cadence.next:
            self._begin_sample()

    @property
    def history(self) -> WatchHistory:
        """Everything so far: this waits for the device."""
        kept = self._samples.fetch()
        return WatchHistory(
            steps=tuple(k.step for k in kept),
            profiles=tuple(k.sample.to_profile() for k in kept),
            losses=self._losses.read(),
        )

    @property
    def share(self) -> float:
        """The share of the time since the beginning that samples took, by the watch's own count."""
        return UNSEEN * self._spent / max(1e-9, time.perf_counter() - self._begun)

    def profile(self, *, step: int | None = None) -> Profile:
        """The newest sampled step, or the newest up to `step`: this waits for the device."""
        last = math.inf if step is None else step
        kept = [k for k in self._samples.fetch() if k.step <= last]
        if not kept:
            raise MeasurementError(
                expected="a sampled step" if step is None else f"a sampled step up to {step}",
                received=f"{self._start + self._done} steps done, no such one among them",
                remedy="call watch.step(loss) after each optimizer.step(); history.steps lists "
                "what was sampled",
            )
        return kept[-1].sample.to_profile()

    def rows(self) -> list[dict[str, Any]]:
        """What was sampled since the last call, as rows of a journal; NaN is null in them."""
        rows = []
        for kept in self._samples.fetch(after=self._told):
            profile = kept.sample.to_profile()
            values = {
                column: [_short(value) for value in profile.column(column)] for column in COLUMNS
            }
            row = {"event": "watch", "step": kept.step, "layers": list(profile.layers)}
            rows.append({**row, "values": values})
            self._told = kept.step
        return rows

    def close(self) -> None:
        """Take all hooks off and finish the event files; what was gathered stays readable."""
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None
        if self._closed:
            return
        self._closed = True
        if self._events is not None:
            self._write_events(self._events)
            self._events.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._sampler is not None:
            self._sampler.close()

    def _begin_sample(self) -> None:
        self._cadence.begin()
        optimizers = self.optimizer
        if isinstance(optimizers, Optimizer):
            optimizers = (optimizers,)
        self._sampler = StepSampler(self._model, *optimizers)

    def _end_sample(self, sampler: StepSampler, loss: Tensor | float | None) -> None:
        self._sampler = None
        sample = sampler.finish()
        if isinstance(loss, Tensor):
            loss = loss.detach().clone() if self._events is not None else None
        self._samples.add(self._start + self._done, sample, loss)
        self._spent += sampler.seconds
        self._cadence.end(seconds=sampler.seconds)
        if self._events is not None and time.monotonic() - self._written > EVENT_INTERVAL:
            self._write_events(self._events)

    def _write_events(self, events: EventFiles) -> None:
        for kept in self._samples.fetch(after=self._in_events):
            loss = None if kept.loss is None else float(kept.loss)
            events.write(kept.step, kept.sample.to_profile(), loss=loss)
            self._in_events = kept.step
        self._written = time.monotonic()


def _check(model: Any, optimizer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise MeasurementError(
            expected="the model that is trained, a torch.nn.Module",
            received=type(model).__name__,
            remedy="leadline.watch(model, optimizer): the model comes first",
        )
    trainable(model)
    every = [optimizer] if isinstance(optimizer, Optimizer) else optimizer
    if not isinstance(every, Sequence) or not all(isinstance(o, Optimizer) for o in every):
        raise MeasurementError(
            expected="a torch.optim.Optimizer, or a list of them",
            received=type(optimizer).__name__,
            remedy="pass the object whose step() the loop calls",
        )
    held = {id(p) for each in every for group in each.param_groups for p in group["params"]}
    if not any(id(parameter) in held for parameter in model.parameters()):
        raise MeasurementError(
            expected="the optimizer of this model",
            received="one that holds none of its parameters",
            remedy="make the optimizer from model.parameters(), after the model is complete",
        )


def _short(value: float) -> float | str | None:
    """A number for a journal: few digits, no NaN or infinity, which JSON lacks."""
    if math.isnan(value):
        return None
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
