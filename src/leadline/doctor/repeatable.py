"""Repeatable: whether a Setup begins the same training each time; where not, made so or said.

The two arms of a trial differ by the remedy only when everything else is the same in both. So the
model is built a second time from the same seed, and the loss is asked twice about the same outputs.

    the same model again      a factory that hands out one model: it is copied, for training one arm
                              would train the other, and the user's own model with it
    another model             a factory that seeds itself, or counts: said, for it cannot be undone
    another loss              a loss that keeps something from call to call: said
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leadline.core.errors import LeadlineError, MeasurementError
from leadline.core.seeds import preserved_random_state, seed_everything
from leadline.core.taps import Taps
from leadline.doctor.examination import copied
from leadline.measure.batch import main_output, read_batch
from leadline.training.setup import Setup


@dataclass(frozen=True, kw_only=True, eq=False)
class Repeatable:
    """A Setup whose models share nothing, and what in it is not the same each time."""

    setup: Setup
    limits: tuple[str, ...]


def made_repeatable(setup: Setup, batch: Any) -> Repeatable:
    """The Setup, with copies of a model that its factory hands out twice. Cost: 1 forward pass.

    Raises MeasurementError where that model cannot be copied, or where the factories give something
    else than a model and an optimizer.

    >>> layer = nn.Linear(2, 1)
    >>> found = made_repeatable(
    ...     Setup(
    ...         model=lambda: layer,
    ...         batches=(),
    ...         loss=nn.functional.mse_loss,
    ...         optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    ...     ),
    ...     (torch.ones(3, 2), torch.ones(3, 1)),
    ... )
    >>> found.setup.model() is layer, len(found.limits)
    (False, 1)
    """
    with preserved_random_state():
        first, second = _built(setup), _built(setup)
        limits: list[str] = []
        if _tensors_of(first) & _tensors_of(second):
            optimizer = _for_copies(setup.optimizer, first)
            setup = replace(setup, model=_copies_of(first), optimizer=optimizer)
            second = setup.model()
            limits.append(
                f"the model's factory hands out the same {type(first).__name__} each time: copies "
                "of it were trained, as it is now; let the factory build a new one"
            )
        elif not _same(first, second):
            limits.append(
                "the model comes out differently each time it is built from the same seed: the "
                "arms of a trial do not begin alike"
            )
        _require_optimizer(setup, second)
        limits += _changing_loss(setup, second, batch)
    return Repeatable(setup=setup, limits=tuple(limits))


def _built(setup: Setup) -> nn.Module:
    seed_everything(setup.seed)
    model: Any = setup.model()
    if not isinstance(model, nn.Module):
        raise MeasurementError(
            expected="a Setup whose model factory returns a torch.nn.Module",
            received=f"a {type(model).__name__}",
            remedy="model=lambda: Net(): a function that builds the model and returns it",
        )
    return model


def _tensors_of(model: nn.Module) -> set[int]:
    return {id(tensor) for tensor in (*model.parameters(), *model.buffers())}


def _copies_of(model: nn.Module) -> Any:
    """A factory of copies of the model as it is now."""
    try:
        kept = copy.deepcopy(model)
    except Exception as error:
        raise MeasurementError(
            expected="a model factory that builds a new model each time",
            received=f"the same {type(model).__name__} again, which cannot be copied: "
            f"{type(error).__name__}: {error}",
            remedy="build the model inside the function: model=lambda: Net()",
        ) from error
    return lambda: copy.deepcopy(kept)


def _for_copies(
    make: Callable[[nn.Module], Optimizer], model: nn.Module
) -> Callable[[nn.Module], Optimizer]:
    """The factory, for copies: an optimizer that holds the model's own weights is made anew."""

    def build(copied: nn.Module) -> Optimizer:
        optimizer = make(copied)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if held & {id(p) for p in model.parameters()}:
            return optimizer_for(copied, optimizer, model)
        return optimizer

    return build


def optimizer_for(copied: nn.Module, optimizer: Optimizer, model: nn.Module) -> Optimizer:
    """The optimizer made anew for a copy of its model: the parameters it held, by their names.

    A copy that a remedy has given other layers than the model has all of them optimized.

    >>> model, twin = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> made = optimizer_for(twin, torch.optim.SGD([model.bias], lr=0.5), model)
    >>> made.param_groups[0]["params"][0] is twin.bias, made.param_groups[0]["lr"]
    (True, 0.5)
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    own = dict(copied.named_parameters())
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    if set(own) == set(names.values()):
        memo: dict[int, Any] = {key: own[names[key]] for key in held if key in names}
        return copy.deepcopy(optimizer, memo)
    options = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    made = copy.deepcopy(optimizer)
    made.state.clear()
    made.param_groups = [{**options, "params": list(copied.parameters())}]
    return made


def _same(first: nn.Module, second: nn.Module) -> bool:
    """Whether the weights and buffers are the same, bit for bit; NaN is the same as NaN."""
    mine, its = ([*m.parameters(), *m.buffers()] for m in (first, second))
    if len(mine) != len(its):
        return False
    pairs = [(a, b) for a, b in zip(mine, its, strict=True) if _has_numbers(a) and _has_numbers(b)]
    with torch.no_grad():
        return all(
            a.shape == b.shape and torch.equal(a.nan_to_num(nan=0.5), b.nan_to_num(nan=0.5))
            for a, b in pairs
        )


def _has_numbers(tensor: Tensor) -> bool:
    return not nn.parameter.is_lazy(tensor) and not tensor.is_meta and not tensor.is_sparse


def _require_optimizer(setup: Setup, model: nn.Module) -> None:
    optimizer: Any = setup.optimizer(model)
    if not isinstance(optimizer, Optimizer):
        raise MeasurementError(
            expected="a Setup whose optimizer factory returns a torch.optim.Optimizer",
            received=f"a {type(optimizer).__name__}",
            remedy="optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-3)",
        )


def _changing_loss(setup: Setup, model: nn.Module, batch: Any) -> list[str]:
    """What to say of a loss that gives two values for the same outputs; nothing if it fails."""
    try:
        given = read_batch(batch, model=model, finite=False)
        with Taps(model), torch.no_grad():
            outputs = copied(given).forward(model)
            main_output(outputs)
        values = [_value(setup, outputs, given.targets) for _ in range(2)]
    except LeadlineError:
        return []  # the check says what is wrong with it
    if values[0] == values[1] or not all(map(math.isfinite, values)):
        return []
    return [
        f"the loss is {values[0]:.6g} and then {values[1]:.6g} for the same outputs: it keeps "
        "something from call to call, which the arms of a trial hand on to one another"
    ]


def _value(setup: Setup, outputs: Any, targets: Any) -> float:
    seed_everything(setup.seed)
    try:
        value: Tensor = setup.loss(outputs, targets)
        return float(value)
    except Exception as error:
        raise MeasurementError(
            expected="a loss of (outputs, targets)", received=str(error), remedy="see the check"
        ) from error
