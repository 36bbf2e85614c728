"""Check: one pass in seconds before the training, and what it says about the network.

    print(leadline.check(model, batch, loss))

The evidence is gathered first (`examination`), then every family of causes looks at it. A healthy
network gives no finding. Nothing is changed: model, gradients, buffers, optimizer and random
streams are afterwards what they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from leadline.core.errors import ConfigError, MeasurementError
from leadline.core.profile import Profile
from leadline.core.seeds import preserved_random_state, seed_everything
from leadline.core.taps import Taps
from leadline.doctor.causes import (
    activation,
    architecture,
    data,
    initialisation,
    normalisation,
    numerics,
    optimisation,
    preprocessing,
    regularisation,
    training_loop,
)
from leadline.doctor.causes import (
    loss as loss_causes,
)
from leadline.doctor.examination import Examination, copied, examine
from leadline.doctor.finding import Finding, by_severity
from leadline.doctor.first_step import is_scheduled
from leadline.doctor.words import describe_checkup
from leadline.measure.batch import Batch, Loss, main_output, read_batch
from leadline.measure.survey import Survey
from leadline.training.setup import Setup

Signs = Callable[[Examination], Iterator[Finding]]

FAMILIES: tuple[Signs, ...] = (
    data.signs,
    numerics.signs,
    training_loop.signs,
    loss_causes.signs,
    activation.signs,
    architecture.signs,
    preprocessing.signs,
    initialisation.signs,
    normalisation.signs,
    regularisation.signs,
    optimisation.signs,
)
"""Who looks at the evidence; of findings of one severity, the earlier family's come first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkup:
    """What a check found: `findings`, the worst first, and the layers it saw.

    `loss` is that of the batch before any step, `expected_loss` that of a network that knows
    nothing, None where the loss is of no known kind. `survey` is None when the loss itself could
    not be computed.
    """

    findings: tuple[Finding, ...]
    survey: Survey | None
    loss: float
    expected_loss: float | None
    model: str
    seconds: float

    @property
    def healthy(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return all(finding.severity == "note" for finding in self.findings)

    @property
    def profile(self) -> Profile | None:
        """The layers in depth order, with spread, gradient and the share of silent units."""
        return self.survey.profile if self.survey is not None else None

    def to_plain(self) -> dict[str, Any]:
        """The checkup as plain values for JSON."""
        return {
            "model": self.model,
            "healthy": self.healthy,
            "findings": [finding.to_plain() for finding in self.findings],
            "loss": self.loss if math.isfinite(self.loss) else str(self.loss),
            "expected_loss": self.expected_loss,
            "seconds": round(self.seconds, 3),
            "profile": self.profile.to_plain() if self.profile is not None else None,
        }

    def __str__(self) -> str:
        return describe_checkup(
            model=self.model,
            survey=self.survey,
            findings=self.findings,
            loss=self.loss,
            expected=self.expected_loss,
            seconds=self.seconds,
        )


def check(
    model: nn.Module | Setup,
    batch: Any = None,
    loss: Loss | None = None,
    *,
    optimizer: Optimizer | None = None,
) -> Checkup:
    """Check a network before it trains: a model with a batch and a loss, or a whole Setup.

    `batch` is what one turn of a loop over the data gives: `(inputs, targets)`, or a mapping of
    keywords; `loss` takes `(outputs, targets)`, and may be left out when the model returns its
    own. With the `optimizer` its first step is looked at too. Cost: 2 to 4 forward-backward
    passes. Raises MeasurementError when there is nothing to measure: a model that fails on the
    batch, or that has no parameters to learn with; ConfigError when an argument is of another type.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
    >>> batch = torch.randn(8, 4), torch.arange(8) % 3
    >>> [finding.cause for finding in check(model, batch, nn.CrossEntropyLoss()).findings]
    ['double_softmax']
    """
    if isinstance(model, Setup):
        return _check_setup(model)
    _refuse_other_types(model, loss, optimizer)
    if batch is None:
        raise MeasurementError(
            expected="a model, a batch and a loss, or a Setup",
            received=f"a {type(model).__name__} alone",
            remedy="check(model, next(iter(loader)), loss)",
        )
    return _checked(model, batch, loss, optimizer=optimizer, scheduled=False).checkup


def _refuse_other_types(model: Any, loss: Any, optimizer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ConfigError(
            expected="a model that is a torch.nn.Module, or a Setup",
            received=_kind(model),
            remedy="pass the model first: check(model, batch, loss)",
        )
    if loss is not None and not callable(loss):
        raise ConfigError(
            expected="a loss that takes (outputs, targets)",
            received=_kind(loss),
            remedy="pass a function or a module, such as nn.CrossEntropyLoss(), not its value",
        )
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise ConfigError(
            expected="an optimizer that is a torch.optim.Optimizer",
            received=_kind(optimizer),
            remedy="pass the one that training steps: torch.optim.Adam(model.parameters()); check "
            "several one after the other",
        )


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _check_setup(setup: Setup) -> Checkup:
    """Build the setup as a training would, on its first batch."""
    with preserved_random_state():
        seed_everything(setup.seed)
        batch = next(iter(setup.batches), None)
    if batch is None:
        raise MeasurementError(
            expected="a Setup with at least one batch",
            received="batches that are empty",
            remedy="check the path and the filter of the data, and drop_last",
        )
    return check_on(setup, batch).checkup


@dataclass(frozen=True, kw_only=True, eq=False)
class Checked:
    """A checkup with the evidence behind it; `seen` is None when no loss could be computed."""

    checkup: Checkup
    seen: Examination | None


def check_on(setup: Setup, batch: Any) -> Checked:
    """Build the setup as a training would, and check it on this batch."""
    with preserved_random_state():
        seed_everything(setup.seed)
        model = setup.model()
        optimizer = setup.optimizer(model)
        if setup.schedule is not None:
            setup.schedule(optimizer)
        model.train()
        return _checked(
            model, batch, setup.loss, optimizer=optimizer, scheduled=setup.schedule is not None
        )


def _checked(
    model: nn.Module,
    batch: Any,
    loss: Loss | None,
    *,
    optimizer: Optimizer | None,
    scheduled: bool,
) -> Checked:
    name = type(getattr(model, "_orig_mod", model)).__name__
    scheduled = scheduled or (optimizer is not None and is_scheduled(optimizer))
    first: list[Finding] = []
    try:
        seen = examine(model, batch, loss=loss, optimizer=optimizer, scheduled=scheduled)
    except MeasurementError as error:
        failed = _explain(model, batch, error)
        if failed is None:
            raise
        first = [failed.finding]
        if failed.mended is None:
            checkup = Checkup(
                findings=tuple(first),
                survey=None,
                loss=math.nan,
                expected_loss=None,
                model=name,
                seconds=0.0,
            )
            return Checked(checkup=checkup, seen=None)
        seen = examine(model, failed.mended, loss=loss, optimizer=optimizer, scheduled=scheduled)
    told = {finding.cause for finding in first}
    findings = [f for signs in FAMILIES for f in signs(seen) if f.cause not in told]
    checkup = Checkup(
        findings=by_severity([*first, *findings]),
        survey=seen.survey,
        loss=seen.survey.loss,
        expected_loss=seen.loss_at_start,
        model=name,
        seconds=seen.seconds,
    )
    return Checked(checkup=checkup, seen=seen)


@dataclass(frozen=True, kw_only=True)
class _Failed:
    """Why the loss could not be computed, and a batch with which it can, to look further."""

    finding: Finding
    mended: Batch | None


def _explain(model: nn.Module, batch: Any, error: MeasurementError) -> _Failed | None:
    """The cause of a loss that cannot be computed, where outputs and targets tell it."""
    if error.__cause__ is None:
        return None
    given = read_batch(batch, model=model)
    asked = copied(given)
    if error.expected != LOSS_FAILED:  # it may be the model's own loss, which the labels turn on
        if "labels" not in given.kwargs:
            return None
        asked = _without_labels(asked)
    try:
        with Taps(model), torch.no_grad():
            outputs = main_output(asked.forward(model))
    except MeasurementError:
        return None  # it is not the loss that fails
    finding = loss_causes.explain_failed_loss(outputs, _without_labels(given), str(error.__cause__))
    if finding is None:
        return None
    mended = None
    if finding.cause in ("labels_shifted", "output_units_wrong"):
        classes = outputs.shape[loss_causes.class_axis(outputs, given.targets)]
        inside = given.targets.clamp(0, classes - 1)
        ignored = given.targets == loss_causes.IGNORED
        targets = inside.where(~ignored, given.targets)
        labels = {"labels": targets} if given.kwargs.get("labels") is given.targets else {}
        mended = replace(given, kwargs={**given.kwargs, **labels}, targets=targets)
    return _Failed(finding=finding, mended=mended)


def _without_labels(batch: Batch) -> Batch:
    """The batch as the model predicts from it: labels are targets, whoever computes the loss."""
    return replace(batch, kwargs={k: v for k, v in batch.kwargs.items() if k != "labels"})


LOSS_FAILED = "a loss that takes (outputs, targets)"
"""How `Batch.loss_of` begins when the loss function raised."""
