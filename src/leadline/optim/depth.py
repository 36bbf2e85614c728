"""The depth of a network as a list of parts, and rates that fall from its head to its stem.

What a trained network knows is the more general the nearer it is to the input, so that a new task
should move the head most and the stem least: part l of L gets the rate lr x decay^(L - l) (Clark et
al. 2020, ELECTRA, arXiv:2003.10555, for transformers; Howard and Ruder 2018, arXiv:1801.06146,
'discriminative fine-tuning').

A part is what stands in a row with others in the module tree: the items of Sequentials and lists,
and the layers beside them. A norm belongs to the layer before it, a parameter that the model holds
itself (a class token) to the first part. The surprising choice: a module is looked into only where
it is most of the network and holds a row of parts, so that a residual block remains one part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from leadline.core.errors import ModelError

ROWS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
MOST = 0.5
"""Share of all parameters from which a module is the network and not one of its parts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One part of the depth: its modules with their dotted names, and its parameters."""

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...]

    @property
    def name(self) -> str:
        """The name of its first module."""
        return self.names[0]


def depth_parts(model: nn.Module) -> tuple[Part, ...]:
    """The parts of `model` from the input to the head; each of its parameters is in one of them.

    A model without parameters is a ModelError.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    >>> [part.name for part in depth_parts(model)]
    ['0', '3']
    """
    rows: list[list[tuple[str, nn.Module]]] = []
    total = sum(parameter.numel() for parameter in model.parameters())
    for name, module in _walk(model, prefix="", total=total):
        if rows and _is_plain(module):
            rows[-1].append((name, module))
        else:
            rows.append([(name, module)])
    if not rows:
        raise ModelError(
            expected="a model with layers that have parameters",
            received=f"a {type(model).__name__} without",
            remedy="register its layers as attributes (a plain Python list hides them)",
        )
    taken: set[int] = set()
    parts = [_part(row, taken) for row in rows]
    left = tuple(p for p in model.parameters() if id(p) not in taken)
    first = dataclasses.replace(parts[0], parameters=(*left, *parts[0].parameters))
    return (first, *parts[1:])


def decay_by_depth(optimizer: Optimizer, model: nn.Module, *, factor: float) -> None:
    """Split the groups of `optimizer`, in place, so that each part of `model` has its own rate.

    The head keeps the rate; each part before it has `factor` times that of the part behind. To be
    called before a schedule is made. The group of the highest rate comes first.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    >>> decay_by_depth(optimizer, model, factor=0.5)
    >>> [group["lr"] for group in optimizer.param_groups]
    [1.0, 0.5, 0.25]
    """
    parts = depth_parts(model)
    distance = {
        id(parameter): len(parts) - 1 - index
        for index, part in enumerate(parts)
        for parameter in part.parameters
    }
    split: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        near: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            near.setdefault(distance[id(parameter)], []).append(parameter)
        split += [
            {**group, "params": parameters, "lr": group["lr"] * factor**steps}
            for steps, parameters in near.items()
        ]
    optimizer.param_groups[:] = sorted(split, key=lambda group: -group["lr"])


def _walk(module: nn.Module, *, prefix: str, total: int) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        size = sum(parameter.numel() for parameter in child.parameters())
        if size == 0:
            continue
        if isinstance(child, ROWS) or (size > MOST * total and _has_row(child)):
            yield from _walk(child, prefix=f"{prefix}{name}.", total=total)
        else:
            yield f"{prefix}{name}", child


def _has_row(module: nn.Module) -> bool:
    """Whether a row of at least two parts with weights is anywhere inside."""
    rows = (child for child in module.modules() if isinstance(child, ROWS))
    return any(
        sum(not _is_plain(item) for item in row.children() if any(True for _ in item.parameters()))
        > 1
        for row in rows
    )


def _is_plain(module: nn.Module) -> bool:
    """Whether it has vectors alone: a norm, a scale."""
    return all(parameter.ndim <= 1 for parameter in module.parameters())


def _part(row: list[tuple[str, nn.Module]], taken: set[int]) -> Part:
    parameters = []
    for _, module in row:
        for parameter in module.parameters():
            if id(parameter) not in taken:  # a tied one belongs to the first that has it
                taken.add(id(parameter))
                parameters.append(parameter)
    return Part(
        names=tuple(name for name, _ in row),
        modules=tuple(module for _, module in row),
        parameters=tuple(parameters),
    )
