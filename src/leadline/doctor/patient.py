"""Patient: a Setup under diagnosis: all evidence on it, taken when first asked for, and paid for.

Every question costs steps and seconds, which come out of one allowance; what cannot be answered
within it, or not at all, is written down in `limits` instead of being guessed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.core.errors import LeadlineError, MeasurementError
from leadline.doctor.arm import Outcome, Probe, run_arm
from leadline.doctor.check import Checked, check_on
from leadline.doctor.drawn import Drawn
from leadline.doctor.examination import Examination
from leadline.doctor.problem import Problem, read_problem
from leadline.doctor.remedies.batches import finite_rows
from leadline.doctor.remedy import Remedy
from leadline.doctor.repeatable import made_repeatable
from leadline.training.execution import Execution
from leadline.training.setup import Setup

SHARE = 0.15
"""Part of the whole training's time that a diagnosis may take."""

FLOOR = 60.0
"""Seconds that a diagnosis may take however short the training is."""

ARMS = 10
"""Trainings the allowance is cut into."""

SHORTEST, LONGEST = 48, 2000
"""Steps of an arm: fewer show nothing, more are not needed to tell two trainings apart."""

WHOLE = 3
"""Times the steps of an arm that a training may have to be run whole instead."""

FEWEST_ARMS = 3
"""Arms that an allowance in steps must hold: the training as it is, and two remedies."""

ASKED = 1024
"""Examples a model is asked after an arm."""

GATHERED = 4096
"""Examples whose inputs and targets are looked at by themselves."""


@dataclass(kw_only=True)
class Allowance:
    """What a diagnosis may cost, and what it has cost so far."""

    seconds: float = math.inf
    steps: float = math.inf
    spent_seconds: float = 0.0
    spent_steps: int = 0
    begun: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (time.perf_counter() - self.begun)

    def affords(self, steps: int, seconds: float) -> bool:
        """Whether so many more steps, which take so long, are within it."""
        return self.spent_steps + steps <= self.steps and seconds <= self.left

    def __str__(self) -> str:
        words = [] if math.isinf(self.seconds) else [f"{self.seconds:.3g} s"]
        words += [] if math.isinf(self.steps) else [f"{self.steps:,.0f} steps"]
        return " and ".join(words) or "as much as it takes"


class Patient:
    """The Setup, its first batches, what is to be learned, and the arms that were run."""

    def __init__(
        self,
        setup: Setup,
        *,
        execution: Execution | None = None,
        steps: int | None = None,
        seconds: float | None = None,
    ) -> None:
        self.allowance = Allowance()
        self.setup = setup
        self.execution = execution or Execution()
        self.limits: list[str] = []
        self.drawn = Drawn(setup.batches, seed=setup.seed, ahead=lambda: _begin(setup))
        self.first = self.drawn.take(1)[0]
        repeatable = made_repeatable(setup, self.first)
        self.setup = setup = repeatable.setup
        self.limits += repeatable.limits
        self.checked: Checked = check_on(setup, self.first)
        self.gathered = _gather(self._several())
        self.held_out = _held_out(setup, self.limits)
        self.problem = self._problem()
        self.probe = Probe(
            training=_some(self.drawn.take(self._batches_for(ASKED)), ASKED),
            held_out=_spread(self.held_out, ASKED),
            problem=self.problem,
            complete=self._asks_all(),
        )
        self.total_steps = self._total()
        self.step_seconds, self.steps = self._measure(steps=steps, seconds=seconds)

    @property
    def seen(self) -> Examination | None:
        """The evidence of the first batch; None where no loss could be computed."""
        return self.checked.seen

    @property
    def has_batch_norm(self) -> bool:
        """Whether a layer keeps statistics of the batches."""
        return self.seen is not None and any(
            isinstance(module, _BatchNorm) for module in self.seen.model.modules()
        )

    @property
    def whole(self) -> bool:
        """Whether an arm is as long as the training itself."""
        return self.total_steps is not None and self.steps >= self.total_steps

    def arm(self, *remedies: Remedy, times: float = 1.0) -> Outcome:
        """Train a copy for `times` the steps of a trial, with these remedies or without any.

        They change the batches of the arm as they would those of the training.
        """
        count = max(1, round(self.steps * times)) * self.setup.accumulate
        outcome = run_arm(
            self.setup,
            self.drawn.take(count),
            remedies=remedies,
            probe=self.probe,
            execution=self.execution,
        )
        self.allowance.spent_steps += outcome.steps
        return outcome

    def arm_on(self, batches: Sequence[Any], *remedies: Remedy) -> Outcome:
        """Train a copy for the steps of a trial on these batches, again and again."""
        count = self.steps * self.setup.accumulate
        rounds = -(-count // max(len(batches), 1))
        outcome = run_arm(
            self.setup,
            (list(batches) * rounds)[:count],
            remedies=remedies,
            probe=self.probe,
            execution=self.execution,
        )
        self.allowance.spent_steps += outcome.steps
        return outcome

    def affords(self, arms: float = 1.0) -> bool:
        """Whether so many more arms are within the allowance."""
        steps = round(self.steps * arms)
        return self.allowance.affords(steps, steps * self.step_seconds)

    def _several(self) -> list[Any]:
        return self.drawn.take(self._batches_for(GATHERED))

    def _batches_for(self, examples: int) -> int:
        size = max(1, _examples(self.first))
        count = min(max(1, -(-examples // size)), 512)
        per_epoch = self.drawn.per_epoch
        return count if per_epoch is None else max(1, min(count, per_epoch))

    def _asks_all(self) -> bool:
        """Whether the examples asked are the whole training set, not a draw of it."""
        per_epoch = self.drawn.per_epoch
        return per_epoch is not None and per_epoch * _examples(self.first) <= ASKED

    def _problem(self) -> Problem:
        seen = self.seen
        if seen is None or self.gathered is None:
            return Problem(kind="unknown")
        outputs = seen.survey.outputs
        _, targets = self.gathered
        if outputs.ndim == 0:
            return Problem(kind="unknown")
        count = max(1, len(outputs))
        repeated = outputs.repeat(-(-len(targets) // count), *[1] * (outputs.ndim - 1))
        return read_problem(repeated[: len(targets)], targets, seen.nature)

    def _total(self) -> int | None:
        per_epoch = self.drawn.per_epoch
        if per_epoch is None:
            self.limits.append("the batches have no length: how long the training is, is not known")
            return None
        return self.setup.epochs * -(-per_epoch // self.setup.accumulate)

    def _measure(self, *, steps: int | None, seconds: float | None) -> tuple[float, int]:
        """The time of a step, and from it and the allowance the steps of an arm."""
        trial = run_arm(
            self.setup,
            self.drawn.take(5 * self.setup.accumulate),
            probe=Probe(training=(), held_out=(), problem=self.problem),
            execution=self.execution,
        )
        self.allowance.spent_steps += trial.steps
        if trial.crashed and not trial.steps:
            self.limits.append(f"not one step could be trained on a copy: {trial.ended}")
        each = trial.seconds / max(trial.steps, 1)
        whole = None if self.total_steps is None else self.total_steps * each
        if seconds is None:
            seconds = FLOOR if whole is None else max(FLOOR, SHARE * whole)
        self.allowance.seconds = seconds
        if steps is not None:
            self.allowance.steps = steps
        affordable = min(
            (self.allowance.left / each if each > 0 else LONGEST) / ARMS,
            (self.allowance.steps - self.allowance.spent_steps) / ARMS,
        )
        length = int(min(max(affordable, SHORTEST), LONGEST))
        if self.total_steps is not None and self.total_steps <= WHOLE * length:
            length = self.total_steps
        left = self.allowance.steps - self.allowance.spent_steps
        if length * FEWEST_ARMS > left:
            length = int(left / FEWEST_ARMS)
        return each, max(1, length)

    @property
    def share(self) -> float | None:
        """What the diagnosis cost, as a part of the whole training's time."""
        if not self.total_steps:
            return None
        return self.spent / (self.total_steps * self.step_seconds)

    @property
    def spent(self) -> float:
        """Seconds spent so far."""
        return time.perf_counter() - self.allowance.begun


def _begin(setup: Setup) -> None:
    """What a training does before it asks for its first batch."""
    optimizer = setup.optimizer(setup.model())
    if setup.schedule is not None:
        setup.schedule(optimizer)


def _held_out(setup: Setup, limits: list[str]) -> list[Any]:
    """The validation batches, as many as are needed; a validation that fails is told."""
    if setup.validation is None:
        return []
    drawn = Drawn(setup.validation, seed=setup.seed)
    try:
        wanted = -(-GATHERED // max(1, _examples(drawn.take(1)[0])))
        kept = drawn.take(wanted)
    except MeasurementError as error:
        limits.append(f"no validation batch could be had: {error.received}")
        return []
    limits += [f"of the validation: {limit}" for limit in drawn.limits]
    if drawn.per_epoch is not None:
        kept = kept[: drawn.per_epoch]
    return list({id(batch): batch for batch in kept}.values())  # each once, if it ended early


def _gather(batches: Sequence[Any]) -> tuple[Tensor, Tensor] | None:
    """Inputs and targets of several batches, one behind the other; None where they are no pairs."""
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            return None
        x, y = batch
        if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.ndim == 0 or y.ndim == 0:
            return None
        inputs.append(x.detach().cpu())
        targets.append(y.detach().cpu())
    try:
        return torch.cat(inputs), torch.cat(targets)
    except RuntimeError:
        return inputs[0], targets[0]  # batches of different widths, as padded text has


def _examples(batch: Any) -> int:
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    return len(first) if isinstance(first, Tensor) and first.ndim else 1


def _some(batches: Sequence[Any], examples: int) -> list[tuple[Any, Any]]:
    """The first batches with so many examples together."""
    kept: list[tuple[Any, Any]] = []
    count = 0
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2 or count >= examples:
            break
        kept.append(_answerable(batch[0], batch[1]))
        count += _examples(batch)
    return kept


def _answerable(inputs: Any, targets: Any) -> tuple[Any, Any]:
    """The examples of a batch that are finite: no network has an answer to the others."""
    if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
        return inputs, targets
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        return inputs, targets
    keep = finite_rows(inputs) & finite_rows(targets)
    whole = bool(keep.all()) or not bool(keep.any())
    return (inputs, targets) if whole else (inputs[keep], targets[keep])


def _spread(batches: Sequence[Any], examples: int) -> list[tuple[Any, Any]]:
    """Batches with about so many examples, from all over: held-out ones are seldom shuffled."""
    total = sum(_examples(batch) for batch in batches)
    every = max(1, total // max(1, examples))
    return _some(list(batches)[::every], examples)


def patient_of(setup: Setup, **options: Any) -> Patient:
    """The patient that a Setup makes, with a plain word where it cannot be one."""
    try:
        return Patient(setup, **options)
    except LeadlineError:
        raise
    except Exception as error:
        raise MeasurementError(
            expected="a Setup whose model, batches, loss and optimizer can be made and run",
            received=f"{type(error).__name__}: {error}",
            remedy="run one step of it by hand: model = setup.model(); "
            "setup.loss(model(inputs), targets).backward()",
        ) from error
