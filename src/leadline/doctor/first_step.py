"""The first step: what one update does to the weights and to the loss on its own batch.

The optimizer that the user made takes one real step with the gradient that was measured; then
weights, optimizer and random streams are put back bit for bit. A step that is too large shows at
once: the loss of the very batch it was made for rises. The sizes tell the rest: an update of a
thousandth of a weight's norm is usual (Karpathy's rule of thumb for the ratio is 1e-3); one of the
norm itself wipes out what initialisation did. Under a warm-up the first step is small whatever the
rate is, so the step is taken at the rate that the warm-up leads to.
"""

from __future__ import annotations

import copy
import inspect
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.optim import Optimizer

from leadline.core.taps import Taps, plain_name
from leadline.measure.batch import Batch, Loss
from leadline.measure.survey import numbers_in


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """What one update did: the loss before and after, and each matrix's relative change.

    `ratios` maps a parameter of two or more dimensions to ‖Δw‖/‖w‖; biases and gains, which often
    begin at 0, are left out. `rate` is the largest learning rate of the step, NaN without one.
    """

    before: float
    after: float
    ratios: Mapping[str, float]
    rate: float = math.nan

    @property
    def typical(self) -> float:
        """The median ratio, of an even number the lower one; NaN when there is none."""
        return statistics.median_low(self.ratios.values()) if self.ratios else math.nan


def first_step(
    model: nn.Module,
    batch: Batch,
    *,
    loss: Loss | None,
    optimizer: Optimizer,
    gradients: Mapping[str, Tensor | None],
    before: float,
) -> FirstStep:
    """Take one step of `optimizer` with the given gradients, look, and put everything back.

    Cost: 1 optimizer step and 1 forward pass; memory for one more copy of the weights.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = model.weight.data.fill_(1.0)
    >>> batch = Batch(args=(torch.ones(1, 1),), targets=torch.zeros(1, 1))
    >>> step = first_step(
    ...     model,
    ...     batch,
    ...     loss=nn.functional.mse_loss,
    ...     optimizer=torch.optim.SGD(model.parameters(), lr=0.25),
    ...     gradients={"weight": torch.tensor([[2.0]])},
    ...     before=1.0,
    ... )
    >>> step.after, step.ratios["weight"], model.weight.item()
    (0.25, 0.5, 1.0)
    """
    parameters = {plain_name(name): p for name, p in model.named_parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    weights = [(p, p.detach().clone()) for p in held]
    groups, state = _lend_copies(optimizer)
    rate = _end_warm_up(optimizer)
    # Values come back bit for bit, so a graph that waits for its backward pass is still valid.
    with Taps(model), _unsafe_preserve_version_counter(tuple(held)):
        strangers = {id(p) for p in held} - {id(p) for p in parameters.values()}
        kept = [(p, p.grad) for p in held if id(p) in strangers]
        try:
            for name, gradient in gradients.items():
                parameters[name].grad = gradient
            for p, _ in kept:
                p.grad = None
            with torch.no_grad():
                _step(optimizer)
            ratios = _ratios(parameters, weights)
            with torch.no_grad():
                after = float(batch.loss(model, loss))
        finally:
            with torch.no_grad():
                for p, weight in weights:
                    p.copy_(weight)
            for p, found in kept:
                p.grad = found
            _put_back(optimizer, groups, state)
    return FirstStep(before=before, after=after, ratios=ratios, rate=rate)


def _step(optimizer: Optimizer) -> None:
    """The step itself, without the hooks others put on it and without the scheduler's counter."""
    step = type(optimizer).step
    if getattr(step, "hooked", False):  # what calls the hooks is a wrapper that torch puts on
        step = inspect.unwrap(step, stop=lambda inner: not getattr(inner, "hooked", False))
    step(optimizer)


def _ratios(
    parameters: Mapping[str, Tensor], weights: list[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    names = {id(p): name for name, p in parameters.items()}
    named = [(names[id(p)], p.detach(), w) for p, w in weights if id(p) in names and p.ndim >= 2]
    if not named:
        return {}
    norms = [torch.linalg.vector_norm(numbers_in(w).float()) for _, _, w in named]
    changes = [torch.linalg.vector_norm(numbers_in(p - w).float()) for _, p, w in named]
    pairs = torch.stack([torch.stack(changes), torch.stack(norms)]).T.tolist()
    return {
        name: change / norm
        for (name, _, _), (change, norm) in zip(named, pairs, strict=True)
        if norm > 0
    }


def _lend_copies(optimizer: Optimizer) -> tuple[list[dict[str, Any]], dict[Tensor, Any]]:
    """Let the optimizer write into copies of its state and settings; the originals."""
    groups = [dict(group) for group in optimizer.param_groups]
    state = dict(optimizer.state)
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key != "params"}
        group.update(copy.deepcopy(settings))
    for parameter, entry in state.items():
        optimizer.state[parameter] = copy.deepcopy(entry)
    return groups, state


def is_scheduled(optimizer: Optimizer) -> bool:
    """Whether a scheduler holds the rates: it notes in each group the rate it began with."""
    return any("initial_lr" in group for group in optimizer.param_groups)


def _end_warm_up(optimizer: Optimizer) -> float:
    """Raise the rates of a training that has not begun to those its schedule was given.

    Later a rate below the initial one is a decay, and is left. Returns the largest rate.
    """
    for group in optimizer.param_groups:
        if "initial_lr" in group and not optimizer.state and group["initial_lr"] > group["lr"]:
            group["lr"] = group["initial_lr"]
    return max((float(g["lr"]) for g in optimizer.param_groups if "lr" in g), default=math.nan)


def _put_back(optimizer: Optimizer, groups: list[dict[str, Any]], state: dict[Tensor, Any]) -> None:
    for group, found in zip(optimizer.param_groups, groups, strict=True):
        group.clear()
        group.update(found)
    optimizer.state.clear()
    optimizer.state.update(state)
