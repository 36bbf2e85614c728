"""Examination: all the evidence that one batch gives, gathered before anything is judged.

The passes, in forward-backward passes of the batch: the survey, 1; which inputs an output depends
on, and whether it can be repeated, a few passes of two or three examples; with an optimizer, its
first step, 1/3 more. Only where the survey raises a question is another pass spent: a parameter
without gradient is turned a little to see whether the loss depends on it, and trained running
statistics are tried in evaluation mode.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from leadline.core.errors import LeadlineError
from leadline.core.taps import Taps, plain_name
from leadline.doctor.first_step import FirstStep, first_step
from leadline.doctor.loss_nature import LossNature, ask_loss
from leadline.measure.batch import Batch, Loss, inputs_finite, read_batch, trainable
from leadline.measure.determinism import Determinism, determinism
from leadline.measure.influence import Influence, influence
from leadline.measure.magnitudes import numbers_in
from leadline.measure.survey import Survey, survey


@dataclass(frozen=True, kw_only=True, eq=False)
class Examination:
    """The evidence: the measurements, and the parts that were measured.

    What could not be measured is None: `influence` with one example, `nature` without a loss
    function on a plain tensor, `step` without an optimizer. `still_in_the_loss` names parameters
    without gradient on which the loss depends all the same. `evaluated_loss` is the loss of the
    batch in evaluation mode, where running statistics have been trained. `inputs_written` counts
    the tensors of the batch that the model wrote into.
    """

    model: nn.Module
    batch: Batch
    loss: Loss | None
    optimizer: Optimizer | None
    scheduled: bool
    survey: Survey
    nature: LossNature | None
    influence: Influence | None
    determinism: Determinism | None
    step: FirstStep | None
    still_in_the_loss: tuple[str, ...]
    evaluated_loss: float | None
    matched_loss: float | None
    inputs_written: int
    seconds: float

    @property
    def targets(self) -> Tensor | None:
        """The targets, where they are one tensor."""
        return self.batch.targets if isinstance(self.batch.targets, Tensor) else None

    @property
    def loss_at_start(self) -> float | None:
        """The loss of a network that knows nothing; None where the loss is of no known kind."""
        nature, targets = self.nature, self.targets
        if nature is None or nature.at_start is None:
            return None
        return nature.at_start * (targets.numel() if nature.sums and targets is not None else 1)

    @property
    def class_numbers(self) -> Tensor | None:
        """The targets as class numbers, those to be ignored (below 0) left out."""
        targets = self.targets
        if targets is None or targets.is_floating_point() or targets.is_complex():
            return None
        flat = targets.reshape(-1)
        return flat[flat >= 0] if flat.dtype != torch.bool else None


def examine(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    scheduled: bool = False,
) -> Examination:
    """Gather the evidence; the model, its gradients, buffers and random streams stay as found.

    `scheduled` says that a schedule will change the learning rate, so that a first one that is
    tiny is no sign. Raises MeasurementError where there is nothing to measure.
    """
    begun = time.perf_counter()
    given = read_batch(batch, model=model, finite=False)
    hidden = unregistered_parameters(model)
    if not hidden or next(model.parameters(), None) is not None:
        trainable(model)
    own = copied(given)
    seen = survey(model, own, loss=loss, unregistered=hidden, finite=False)
    sound = inputs_finite(given) and math.isfinite(seen.loss)
    nature = ask_loss(loss, seen.outputs, given.targets) if loss is not None and sound else None
    missing = [name for name, gradient in seen.gradients.items() if gradient is None]
    return Examination(
        model=model,
        batch=given,
        loss=loss,
        optimizer=optimizer,
        scheduled=scheduled,
        survey=seen,
        nature=nature,
        influence=_try(lambda: influence(model, given)) if given.examples > 1 else None,
        determinism=_try(lambda: determinism(model, given)) if sound else None,
        step=_take_step(model, copied(given), loss, optimizer, seen) if sound else None,
        still_in_the_loss=_still_in_the_loss(model, given, loss, missing) if sound else (),
        evaluated_loss=_evaluated(model, given, loss) if sound else None,
        matched_loss=_matched(loss, seen.outputs, given.targets) if sound else None,
        inputs_written=sum(tensor._version > 0 for tensor in own.inputs),
        seconds=time.perf_counter() - begun,
    )


def copied(batch: Batch) -> Batch:
    """The batch with inputs of its own: a model may write into them."""
    return batch.with_inputs(*(tensor.clone() for tensor in batch.inputs))


def unregistered_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Tensors with gradients that sit in plain attributes, lists or dictionaries of the modules.

    torch finds what is an attribute, an nn.ModuleList or an nn.ParameterList; what is in a Python
    list it does not move, save or hand to the optimizer.

    >>> class Stack(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layers = [nn.Linear(1, 1, bias=False)]
    >>> list(unregistered_parameters(Stack()))
    ['layers.0.weight']
    """
    known = {id(p) for p in model.parameters()} | {id(m) for m in model.modules()}
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        prefix = f"{plain_name(path)}." if path else ""
        for attribute, value in vars(module).items():
            if attribute.startswith("_") and attribute.endswith(("modules", "parameters")):
                continue
            for name, tensor in _hidden(f"{prefix}{attribute}", value, known, depth=0):
                found.setdefault(name, tensor)
    return found


DEEPEST = 3  # lists in lists: nobody nests layers further, and anything may hang on a module


def _hidden(name: str, value: Any, known: set[int], *, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, nn.Module):
        if id(value) not in known:
            for inner, parameter in value.named_parameters():
                if id(parameter) not in known:
                    yield f"{name}.{inner}", parameter
    elif isinstance(value, Tensor):
        if value.requires_grad and value.is_leaf and id(value) not in known:
            yield name, value
    elif depth < DEEPEST and isinstance(value, list | tuple):
        for index, entry in enumerate(value[:1000]):
            yield from _hidden(f"{name}.{index}", entry, known, depth=depth + 1)
    elif depth < DEEPEST and type(value) is dict:
        for key, entry in list(value.items())[:1000]:
            yield from _hidden(f"{name}.{key}", entry, known, depth=depth + 1)


def _try(measure: Any) -> Any:
    """What a measurement says, or None where this model cannot be measured so.

    It ran once already, forward and backward: a fault here is that of the question (fewer
    examples, evaluation mode), and the other evidence stands without it.
    """
    try:
        return measure()
    except (LeadlineError, RuntimeError, ValueError, TypeError, IndexError):
        return None


def _take_step(
    model: nn.Module,
    batch: Batch,
    loss: Loss | None,
    optimizer: Optimizer | None,
    seen: Survey,
) -> FirstStep | None:
    present = [g for g in seen.gradients.values() if g is not None]
    if optimizer is None or isinstance(optimizer, torch.optim.LBFGS) or not present:
        return None
    if not all(bool(torch.isfinite(numbers_in(gradient)).all()) for gradient in present):
        return None
    step: FirstStep | None = _try(
        lambda: first_step(
            model,
            batch,
            loss=loss,
            optimizer=optimizer,
            gradients=seen.gradients,
            before=seen.loss,
        )
    )
    return step


def _still_in_the_loss(
    model: nn.Module, batch: Batch, loss: Loss | None, names: list[str]
) -> tuple[str, ...]:
    """Those of the named parameters whose change changes the loss: the graph was cut, not the data.

    All are changed together first; only when that does something, each by itself.
    """
    if not names:
        return ()

    def value(changed: list[str]) -> float:
        weights = {
            plain: parameter.detach() * 1.1 + 0.1
            for plain, parameter in by_name.items()
            if plain in changed
        }
        wrapped = {full[plain]: weight for plain, weight in weights.items()}
        own = copied(batch)
        outputs = torch.func.functional_call(model, wrapped, own.args, dict(own.kwargs))
        return float(batch.loss_of(outputs, loss))

    by_name = {plain_name(name): p for name, p in model.named_parameters()}
    full = {plain_name(name): name for name, _ in model.named_parameters()}

    def probe(changed: list[str]) -> float:
        with Taps(model), torch.no_grad():
            return value(changed)

    try:
        now = probe([])
        if probe(names) == now:
            return ()
        return tuple(name for name in names[:MOST_ASKED] if probe([name]) != now)
    except (LeadlineError, RuntimeError, TypeError):
        return ()


MOST_ASKED = 24  # parameters that are asked one by one: a forward pass each


SETTLED = 50  # batches: with the usual momentum of 0.1 the start then counts 0.9^50 = 0.5 %


def _evaluated(model: nn.Module, batch: Batch, loss: Loss | None) -> float | None:
    """The loss in evaluation mode, if the model is in training mode with trained statistics."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    counts = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
    trained = [count for count in counts if int(count) >= SETTLED]
    if not model.training or not trained:
        return None

    def value() -> float:
        with Taps(model), torch.no_grad():
            model.eval()
            return float(copied(batch).loss(model, loss))

    measured: float | None = _try(value)
    return measured


def _matched(loss: Loss | None, outputs: Tensor, targets: Any) -> float | None:
    """The loss when the outputs are given the targets' shape, where that differs but fits."""
    if loss is None or not isinstance(targets, Tensor) or not targets.is_floating_point():
        return None
    if outputs.shape == targets.shape or outputs.numel() != targets.numel():
        return None

    def value() -> float:
        return float(loss(outputs.reshape(targets.shape), targets))

    measured: float | None = _try(value)
    return measured


def settings(examination: Examination) -> list[Mapping[str, Any]]:
    """The optimizer's parameter groups, without their parameters."""
    if examination.optimizer is None:
        return []
    groups = examination.optimizer.param_groups
    return [{key: value for key, value in group.items() if key != "params"} for group in groups]
