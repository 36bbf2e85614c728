"""Short experiments on a patient that says nothing by itself: what it can learn, and from what.

    overfit_one_batch   can it learn a single batch by heart? If not, something is broken
    shuffled_labels     are the labels easier to learn than the same labels in another order?
    input_independent   is it better than with inputs that are all their mean?
    double_precision    does float64 give the same loss and gradient?

Each takes few steps, pays for them out of the patient's allowance, and returns numbers; whoever
asks judges. Two more are part of every diagnosis: the range of learning rates (`rate_search.py`),
and both modes of the network (`Outcome.in_training`). The first and the third are Karpathy's (A
Recipe for Training Neural Networks, 2019), the second is after Zhang et al. (2017, Understanding
deep learning requires rethinking generalization).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from leadline.core.errors import ConfigError, LeadlineError
from leadline.core.seeds import preserved_random_state
from leadline.core.taps import Taps
from leadline.doctor.arm import Outcome, Probe, run_arm
from leadline.doctor.patient import Patient
from leadline.doctor.remedies.optimisation import adam, rate_times, without_schedule
from leadline.doctor.remedies.precision import Widened
from leadline.doctor.remedy import Remedy
from leadline.doctor.trial import smoothed
from leadline.measure.batch import Batch, main_output

STEPS = 60
"""Steps of an experiment, unless told otherwise."""

FEW = 16
"""Examples that are learned by heart, and with which two types are compared."""

BY_HEART = 0.15
"""Error, on a scale on which 1 is ignorance, below which a batch is known by heart."""


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """How well a few examples were learned by heart: `error` and `loss` at the best `rate`.

    `error` is 0 for perfect answers and 1 for those of a model that knows nothing, `steps` what
    all rates together took.
    """

    learned: bool
    error: float
    loss: float
    start: float
    rate: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The error of the training as it is, and with something taken away from the data.

    `loss` and `spoiled_loss` are those of the training's own loss at the end.
    """

    error: float
    spoiled_error: float
    loss: float
    spoiled_loss: float
    steps: int

    @property
    def uses_it(self) -> bool:
        """Whether what was taken away made a difference: a tenth of the loss, or of the error.

        >>> Compared(error=0.2, spoiled_error=0.9, loss=1.0, spoiled_loss=2.0, steps=2).uses_it
        True
        """
        return self.loss < 0.9 * self.spoiled_loss or self.error < 0.9 * self.spoiled_error


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Loss and gradient of one batch in float32 and float64; differences are relative.

    `in_loss` says that the loss function alone, on the float32 outputs, makes the difference.
    """

    loss: float
    wide_loss: float
    loss_apart: float
    gradient_apart: float
    in_loss: bool


def overfit_one_batch(
    patient: Patient,
    *remedies: Remedy,
    factors: Sequence[float] = (1.0, 10.0, 0.1),
    steps: int = STEPS,
) -> Overfit:
    """Learn a few examples by heart at several rates, and with Adam at last, until one succeeds.

    Dropout and weight decay stay as they are, so that what keeps the training from learning shows.
    Cost: at most `steps` for each of the factors and for Adam.
    """
    batch = _few(patient)
    probe = Probe(training=[batch], held_out=(), problem=patient.problem)
    rate = _rate(patient)
    ways = [(rate_times(factor, rate), factor * rate) for factor in factors]
    ways.append((adam(), 1e-3))
    best: Overfit | None = None
    spent = 0
    for way, at in ways:
        outcome = _run(patient, [batch] * steps * patient.setup.accumulate, (*remedies, way), probe)
        spent += outcome.steps
        error = math.inf if outcome.ended else outcome.training.error
        in_training = outcome.in_training
        if in_training is not None and not outcome.ended:
            error = min(error, in_training.error)
        found = Overfit(
            learned=error < BY_HEART,
            error=error,
            loss=smoothed(outcome.losses, last=3),
            start=outcome.losses[0] if outcome.losses else math.nan,
            rate=at,
            steps=spent,
        )
        best = found if best is None or error < best.error else replace(best, steps=spent)
        if best.learned:
            break
    assert best is not None, "there is always Adam"
    return best


def shuffled_labels(patient: Patient, *remedies: Remedy, steps: int = STEPS) -> Compared:
    """Train as it is, and with the labels of each batch in another order; `steps` for both."""

    def shuffle(inputs: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(number))
        return inputs, targets[order]

    return _compared(patient, remedies, shuffle, steps)


def input_independent(patient: Patient, *remedies: Remedy, steps: int = STEPS) -> Compared:
    """Train as it is, and with every input replaced by the batch's mean; `steps` for both.

    Whole numbers (words, symbols) have no mean: there all inputs become those of one example.
    """

    def blind(inputs: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        floating = inputs.is_floating_point()
        one = inputs.mean(dim=0, keepdim=True) if floating else inputs[:1]
        return one.expand_as(inputs).clone(), targets

    return _compared(patient, remedies, blind, steps)


def double_precision(patient: Patient) -> Precision | None:
    """Loss and gradient of a few examples in float32 and in float64; dropout is switched off.

    None for a model that cannot be run in float64, or has narrower weights. Cost: 4 passes of a
    few examples.
    """
    seen = patient.seen
    if seen is None or any(p.dtype == torch.float64 for p in seen.model.parameters()):
        return None
    batch = seen.batch.first(FEW) if seen.batch.examples > FEW else seen.batch
    try:
        narrow = _loss_and_gradient(seen.model, batch, seen.loss, torch.float32)
        wide = _loss_and_gradient(seen.model, batch, seen.loss, torch.float64)
        with Widened(torch.float64), torch.no_grad():
            outputs = main_output(narrow.outputs).double()
            there = float(_double(batch).loss_of(outputs, seen.loss))
    except (LeadlineError, RuntimeError, TypeError, ValueError, IndexError):
        return None
    return Precision(
        loss=narrow.loss,
        wide_loss=wide.loss,
        loss_apart=_apart(narrow.loss, wide.loss),
        gradient_apart=_gradient_apart(narrow.gradients, wide.gradients),
        in_loss=_apart(narrow.loss, there) > 0.5 * _apart(narrow.loss, wide.loss)
        and _apart(narrow.loss, there) > 1e-6,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pass:
    loss: float
    gradients: tuple[Tensor, ...]
    outputs: Any


def _loss_and_gradient(
    model: nn.Module, batch: Batch, loss: Callable[[Any, Any], Tensor] | None, dtype: torch.dtype
) -> _Pass:
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    own = {n: p.detach().to(dtype).requires_grad_() for n, p in model.named_parameters()}
    buffers = {
        n: b.detach().clone().to(dtype if b.is_floating_point() else b.dtype)
        for n, b in model.named_buffers()
    }
    given = _double(batch) if dtype == torch.float64 else batch
    given = given.with_inputs(*(tensor.clone() for tensor in given.inputs))
    with Taps(model), preserved_random_state(), torch.enable_grad(), Widened(dtype):
        for module in model.modules():
            if isinstance(module, _DropoutNd):
                module.eval()
        outputs = torch.func.functional_call(
            model, {**own, **buffers}, given.args, dict(given.kwargs)
        )
        value = given.loss_of(outputs, loss)
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        value, [own[n] for n in names], allow_unused=True
    )
    return _Pass(
        loss=float(value.detach()),
        gradients=tuple(torch.zeros(0) if g is None else g.double().flatten() for g in gradients),
        outputs=outputs,
    )


def _double(batch: Batch) -> Batch:
    return batch.to(torch.float64)


def _apart(one: float, other: float) -> float:
    return abs(one - other) / max(abs(other), 1e-6)


def _gradient_apart(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> float:
    """The norm of the difference over the norm; 0 where there is no gradient to speak of."""
    first, second = torch.cat(one), torch.cat(other)
    size = float(second.norm())
    return float((first - second).norm()) / size if size > 1e-12 else 0.0


def _compared(
    patient: Patient,
    remedies: Sequence[Remedy],
    spoil: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]],
    steps: int,
) -> Compared:
    batches = patient.drawn.take(steps * patient.setup.accumulate)
    if not all(isinstance(part, Tensor) for batch in batches for part in batch):
        raise ConfigError(
            expected="batches of two tensors, inputs and targets",
            received=" and ".join(type(part).__name__ for part in batches[0]),
            remedy="leave this experiment out",
        )
    spoiled = [spoil(inputs, targets, n) for n, (inputs, targets) in enumerate(batches)]
    asked = [
        spoil(inputs, targets, n) for n, (inputs, targets) in enumerate(patient.probe.training)
    ]
    plain = Probe(training=patient.probe.training, held_out=(), problem=patient.problem)
    other = Probe(training=asked, held_out=(), problem=patient.problem)
    sound = _run(patient, batches, remedies, plain)
    without = _run(patient, spoiled, remedies, other)
    return Compared(
        error=sound.training.error,
        spoiled_error=without.training.error,
        loss=smoothed(sound.losses),
        spoiled_loss=smoothed(without.losses),
        steps=sound.steps + without.steps,
    )


def _run(
    patient: Patient, batches: Sequence[Any], remedies: Sequence[Remedy], probe: Probe
) -> Outcome:
    """An arm that is paid for; the schedule is left out, since it is meant for another length."""
    outcome = run_arm(
        patient.setup,
        batches,
        remedies=(*remedies, without_schedule()),
        probe=probe,
        execution=patient.execution,
    )
    patient.allowance.spent_steps += outcome.steps
    return outcome


def _few(patient: Patient) -> tuple[Any, Any]:
    """The first examples; where their targets are all alike, half of them others."""
    if patient.gathered is None:
        inputs, targets = patient.first
        return inputs[:FEW], targets[:FEW]
    inputs, targets = patient.gathered
    rows = torch.arange(min(FEW, len(targets)))
    apart = (targets != targets[:1]).reshape(len(targets), -1).any(dim=1)
    others = apart.nonzero().flatten()[: FEW // 2]
    if not bool(apart[rows].any()) and len(others):
        rows = torch.cat([rows[: FEW - len(others)], others])
    return inputs[rows], targets[rows]


def _rate(patient: Patient) -> float:
    """The largest learning rate, before a schedule changes it."""
    optimizer = patient.seen.optimizer if patient.seen is not None else None
    groups = optimizer.param_groups if optimizer is not None else []
    rates = [group.get("initial_lr", group.get("lr")) for group in groups]
    return max((float(rate) for rate in rates if rate is not None), default=math.nan)
