"""Gradients under way: whether they were cleared, kept over a step, or lost before one.

A gradient lives in one tensor that torch counts the writings of (`_version`). Whether it is still
the one an earlier step used is therefore known without reading a number: same tensor, same count.
Up to eight parameters of each model and optimizer are looked at, spread over the depth; numbers
are read only where a gradient was changed by hand, and at some steps.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

PROBES = 8
"""Parameters looked at per model and per optimizer."""

SAMPLE = 4096
"""Numbers of each of them that are compared before and after a step."""

_Mark = tuple[int, int] | None  # which tensor the gradient is in, and how often it was written


class _Probe:
    """One parameter: `stale` while its gradient is left from before the last step."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = weakref.ref(parameter)
        self.mark: _Mark = _mark(parameter)
        self.before: _Mark = self.mark
        self.stale = False
        self.given = False  # whether a backward pass gave it a gradient since the last step
        self.sample: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How far a step moved the weights: the share that changed, and the relative size."""

    changed: float
    relative: float


class GradientWatch:
    """Follows the gradients of a few parameters through backward, zero_grad and step."""

    def __init__(self) -> None:
        self._probes: dict[int, _Probe] = {}
        self._of_optimizer: weakref.WeakKeyDictionary[Optimizer, list[int]] = (
            weakref.WeakKeyDictionary()
        )

    def follow(self, parameters: Iterable[Tensor]) -> None:
        """Look at some of these from now on; those that were never seen before."""
        for parameter in spread([p for p in parameters if p.requires_grad], PROBES):
            self._follow(parameter)

    def weights(self, parameters: Iterable[Tensor]) -> float:
        """A number that changes when the weights looked at do."""
        looked_at = [p for p in parameters if id(p) in self._probes]
        return float(sum(_sample(p).double().sum() for p in looked_at[:PROBES]))

    def follow_all(self, parameters: Iterable[Tensor]) -> None:
        """Look at every one: no gradient came to those looked at so far."""
        for parameter in parameters:
            if parameter.requires_grad:
                self._follow(parameter)

    def follow_optimizer(self, optimizer: Optimizer) -> None:
        """Look at some of an optimizer's parameters."""
        held = [p for group in optimizer.param_groups for p in group["params"]]
        known = [p for p in held if id(p) in self._probes]
        chosen = spread([p for p in known or held if p.requires_grad] or held, PROBES)
        self._of_optimizer[optimizer] = [self._follow(p) for p in chosen]

    def before_backward(self) -> bool:
        """Note what is there; whether any gradient is still that of an earlier step."""
        for probe, parameter in self._alive():
            now = _mark(parameter)
            changed_by_hand = probe.stale and now != probe.mark
            if now is None or changed_by_hand:
                probe.stale = False
            probe.before = now
        return any(probe.stale for probe, _ in self._alive())

    def after_backward(self) -> list[Tensor]:
        """The parameters among those looked at that this pass gave a gradient."""
        given = []
        for probe, parameter in self._alive():
            now = _mark(parameter)
            if now != probe.before:
                probe.given = True
                given.append(parameter)
                probe.mark = now  # where it is stale, this was added to what was left
        return given

    def cleared(self, parameters: Iterable[Tensor]) -> bool:
        """`zero_grad` was called on these; whether a gradient not yet used was lost by it."""
        lost = False
        for parameter in parameters:
            probe = self._probes.get(id(parameter))
            if probe is not None:
                lost |= probe.given
                probe.stale = probe.given = False
        return lost

    def rewritten(self, parameters: Iterable[Tensor]) -> None:
        """Gradients were changed in place, by clipping or unscaling: still the same gradients."""
        for parameter in parameters:
            probe = self._probes.get(id(parameter))
            if probe is not None and probe.stale:
                probe.mark = _mark(parameter)

    def before_step(self, optimizer: Optimizer, *, look: bool) -> dict[str, Any]:
        """What the optimizer finds: `stale`, `empty`, and how many backward passes came."""
        if optimizer not in self._of_optimizer:
            self.follow_optimizer(optimizer)
        probes = self._its(optimizer)
        present = [(probe, p.grad) for probe, p in probes if p.grad is not None]
        for probe, parameter in probes:
            if parameter.grad is None:
                probe.stale = False
            probe.sample = _sample(parameter).clone() if look else None
        given = [probe.given for probe, _ in probes]
        facts: dict[str, Any] = {
            "stale": any(probe.stale for probe, _ in present),
            "given": any(given),
            "empty": not present,
        }
        if present and (look or not any(given)):
            facts["empty"] = not any(bool(gradient.any()) for _, gradient in present)
        return facts

    def after_step(self, optimizer: Optimizer, *, look: bool) -> Movement | None:
        """The gradients are used up from here; how far the weights moved, if looked at."""
        probes = self._its(optimizer)
        changed = total = 0
        moved = size = 0.0
        for probe, parameter in probes:
            probe.mark = _mark(parameter)
            probe.stale = probe.mark is not None
            probe.given = False
            if look and probe.sample is not None:
                now = _sample(parameter)
                changed += int((now != probe.sample).sum())
                total += now.numel()
                moved += float((now.float() - probe.sample.float()).square().sum())
                size += float(probe.sample.float().square().sum())
                probe.sample = None
        if not total:
            return None
        relative = (moved / size) ** 0.5 if size > 0 else float(moved > 0)
        return Movement(changed=changed / total, relative=relative)

    def _follow(self, parameter: Tensor) -> int:
        known = self._probes.get(id(parameter))
        if known is None or known.parameter() is not parameter:
            self._probes[id(parameter)] = _Probe(parameter)
        return id(parameter)

    def _its(self, optimizer: Optimizer) -> list[tuple[_Probe, Tensor]]:
        chosen = [self._probes[key] for key in self._of_optimizer.get(optimizer, ())]
        return [(probe, p) for probe in chosen if (p := probe.parameter()) is not None]

    def _alive(self) -> list[tuple[_Probe, Tensor]]:
        pairs = [(key, probe, probe.parameter()) for key, probe in self._probes.items()]
        for key, _, parameter in pairs:
            if parameter is None:
                del self._probes[key]
        return [(probe, parameter) for _, probe, parameter in pairs if parameter is not None]


def gradient_norm_of(optimizer: Optimizer) -> Tensor | None:
    """The norm of all gradients that an optimizer finds, as a tensor that nobody waits for."""
    gradients = [
        p.grad
        for group in optimizer.param_groups
        for p in group["params"]
        if p.grad is not None and not p.grad.is_sparse
    ]
    return nn.utils.get_total_norm(gradients).detach() if gradients else None


def spread(values: Sequence[Any], count: int) -> list[Any]:
    """Up to `count` of the values, evenly spread, the first and the last among them.

    >>> spread("abcdefghi", 3)
    ['a', 'e', 'i']
    """
    if len(values) <= count:
        return list(values)
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def _mark(parameter: Tensor) -> _Mark:
    gradient = parameter.grad
    return None if gradient is None else (id(gradient), gradient._version)


def _sample(parameter: Tensor) -> Tensor:
    with torch.no_grad():
        return parameter.detach().reshape(-1)[:SAMPLE]
