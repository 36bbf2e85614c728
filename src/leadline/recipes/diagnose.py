"""From a word of the command line to a diagnosis: of a recipe, a run, or a function in a file.

A function is called once, and recorded. What it returns decides: a Setup is diagnosed as it is, a
model with a batch and a loss as a training on that batch; anything else came from a function that
trains, and the recording is diagnosed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leadline.core.errors import ConfigError, LeadlineError
from leadline.doctor.check import check
from leadline.doctor.diagnose import diagnose, record
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.past import Past, read_past, with_past
from leadline.doctor.recording.tape import Tape
from leadline.doctor.repeatable import optimizer_for
from leadline.recipes.subject import Subject, understand
from leadline.training.batches import positioned
from leadline.training.execution import Execution
from leadline.training.run import Run
from leadline.training.setup import Setup

ONE_BATCH_STEPS = 200
"""Steps that a training on a single batch is taken to have."""

NEEDS_ALL = frozenset(
    {
        "validation_missing",
        "validation_leak",
        "epochs_too_few",
        "reg_missing",
        "shuffle_missing",
        "batch_size_too_small",
        "batch_size_too_large",
        "scheduler_misused",
    }
)
"""Causes that a training on one batch says nothing about."""

NEEDS_OPTIMIZER = frozenset(
    {"lr_too_high", "lr_too_low", "lr_negative", "optimizer_wrong", "optimizer_params_wrong"}
)
"""Causes that say nothing where the optimizer is not the user's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosed:
    """A diagnosis, and the Setup it is of; None where a loop was recorded or no trial possible.

    `history` tells what the journal of a run shows.
    """

    diagnosis: Diagnosis
    setup: Setup | None
    history: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """The diagnosis as plain values for JSON, with the history."""
        return {**self.diagnosis.to_plain(), "history": list(self.history)}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a diagnosis may cost, and whether a function may be run again; None is the usual."""

    steps: int | None = None
    seconds: float | None = None
    rerun: bool = False


def diagnose_subject(subject: Subject, *, bounds: Bounds) -> Diagnosed:
    """Diagnose whatever was named; a function is called once here.

    Raises ConfigError for a function that fails before any model ran.
    """
    if subject.function is not None:
        return _of_function(subject.name, subject.function, bounds)
    assert subject.setup is not None, "a recipe has one"
    setup = subject.setup
    execution = Execution(device=subject.device) if subject.device else None
    found = diagnose(setup, steps=bounds.steps, seconds=bounds.seconds, execution=execution)
    if subject.run is None:
        return Diagnosed(diagnosis=found, setup=setup)
    past = past_of(subject.run, setup)
    found = replace(found, findings=with_past(found.findings, past))
    return Diagnosed(diagnosis=found, setup=setup, history=past.sentences)


def past_of(run: Run, setup: Setup) -> Past:
    """What the journal of a run shows; `setup` is that of its recipe."""
    per_epoch = -(-len(positioned(setup.batches)) // setup.accumulate)
    metric = setup.task.main_metric if setup.task is not None else ""
    return read_past(run.history(), total_steps=setup.epochs * per_epoch, metric=metric)


def _of_function(name: str, function: Callable[[], Any], bounds: Bounds) -> Diagnosed:
    value: Any = None
    failed: Exception | None = None
    short = name.rpartition(":")[2]
    tape: Tape | None = None
    try:
        with record() as tape:
            value = function()
    except Exception as error:
        if tape is None:
            raise
        failed = error  # a loop that breaks off is diagnosed as far as it came
    assert tape is not None, "a recording that cannot begin has raised"
    learns = bool(tape.of("backward", "step"))
    if failed is not None and not learns:
        if isinstance(failed, LeadlineError):
            raise failed
        raise ConfigError(
            expected=f"{short}() to return (model, batch, loss) or a Setup, or to train",
            received=f"{type(failed).__name__}: {failed}",
            remedy=f"call it by itself until it runs: {short}()",
        ) from failed
    if value is None and not learns:
        raise ConfigError(
            expected=f"{short}() to train, or to return (model, batch, loss) or a Setup",
            received="nothing, and no backward pass while it ran",
            remedy="name the function that holds the training loop, or add a return",
        )
    if isinstance(value, Setup) or not learns:
        return _of_value(understand(value, name=name, function=short), bounds)
    options: dict[str, Any] = {"rerun": function} if bounds.rerun else {}
    found = tape.diagnose(steps=bounds.steps, seconds=bounds.seconds, **options)
    return Diagnosed(diagnosis=found, setup=None)


def _of_value(subject: Subject, bounds: Bounds) -> Diagnosed:
    if subject.setup is not None:
        return diagnose_subject(subject, bounds=bounds)
    model, batch, loss = subject.model, subject.batch, subject.loss
    assert model is not None, "a subject has a Setup or a model"
    if not _is_pair(batch) or loss is None:
        return Diagnosed(diagnosis=_checked_only(subject), setup=None)
    setup = one_batch_setup(model, batch, loss, optimizer=subject.optimizer)
    found = diagnose(setup, steps=bounds.steps, seconds=bounds.seconds)
    limits = ["one batch was given: what the whole of the data, or a validation, would show"]
    unasked = NEEDS_ALL
    if subject.optimizer is None:
        limits.append("no optimizer was given: the trials use Adam at a rate of 1e-3")
        unasked = NEEDS_ALL | NEEDS_OPTIMIZER
    found = replace(
        found,
        findings=tuple(f for f in found.findings if f.cause not in unasked),
        ruled_out=tuple(f for f in found.ruled_out if f.cause not in unasked),
        limits=(*limits, *found.limits),
        share=None,
    )
    return Diagnosed(diagnosis=found, setup=setup)


def _is_pair(batch: Any) -> bool:
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    return pair and all(isinstance(entry, Tensor) for entry in batch)


def one_batch_setup(
    model: nn.Module, batch: Any, loss: Callable[[Any, Any], Tensor], *, optimizer: Optimizer | None
) -> Setup:
    """A training of copies of a model on one batch, 200 steps long.

    >>> batch = torch.ones(4, 2), torch.ones(4, 1)
    >>> setup = one_batch_setup(nn.Linear(2, 1), batch, nn.MSELoss(), optimizer=None)
    >>> len(setup.batches), type(setup.optimizer(setup.model())).__name__
    (200, 'Adam')
    """
    return Setup(
        model=lambda: copy.deepcopy(model),
        batches=[tuple(batch)] * ONE_BATCH_STEPS,
        loss=loss,
        optimizer=_same_optimizer(model, optimizer),
    )


def _same_optimizer(
    model: nn.Module, optimizer: Optimizer | None
) -> Callable[[nn.Module], Optimizer]:
    """Make the optimizer anew for a copy of the model; Adam where there is none."""
    if optimizer is None:
        return lambda fresh: torch.optim.Adam(fresh.parameters(), lr=1e-3)
    return lambda fresh: optimizer_for(fresh, optimizer, model)


def _checked_only(subject: Subject) -> Diagnosis:
    """What one pass shows, as a diagnosis: a batch of another form cannot be trained on here."""
    assert subject.model is not None, "asked of a model"
    seen = check(subject.model, subject.batch, subject.loss, optimizer=subject.optimizer)
    return Diagnosis(
        model=seen.model,
        problem="what the batch and the loss ask",
        measured="",
        findings=seen.findings,
        ruled_out=(),
        baseline=None,
        limits=(
            "no trial could be made: the batch is no pair (inputs, targets) with a loss of its own",
        ),
        steps=0,
        seconds=seen.seconds,
        allowance="none for trials",
        share=None,
    )
