"""Surgery: changing a model that somebody else built, layer by layer, by the names it has.

The operated model is made by a new factory, `operated(setup, change)`: the user's own, and the
change behind it. Names of modules stay where they were, so that an optimizer that looks for
`model.head` finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.grafts import graft_before, graft_behind
from leadline.core.taps import Call, Taps
from leadline.doctor.examination import copied
from leadline.measure.batch import Batch, main_output
from leadline.training.setup import Setup


def operated(setup: Setup, change: Callable[[nn.Module], nn.Module | None]) -> Setup:
    """The Setup whose models come out changed: in place, or as what `change` returns."""
    build = setup.model

    def factory() -> nn.Module:
        model = build()
        changed = change(model)
        return model if changed is None else changed

    return replace(setup, model=factory)


def put(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put a module in the place of the one named; the model itself where the name is empty."""
    if not name:
        return module
    owner, _, leaf = name.rpartition(".")
    parent = model.get_submodule(owner)
    if isinstance(parent, nn.Sequential | nn.ModuleList) and leaf.isdigit():
        parent[int(leaf)] = module
    else:
        setattr(parent, leaf, module)
    return model


def last_module(model: nn.Module, batch: Batch) -> str | None:
    """The name of the leaf module whose output is the model's; None where a function ends it."""
    heard: list[tuple[str, Tensor]] = []

    def listen(call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and call.is_leaf:
            heard.append(("" if call.module is model else call.name, output))

    with Taps(model) as taps, torch.no_grad():
        taps.on_output(listen)
        output = main_output(copied(batch).forward(model))
    same = (n for n, t in reversed(heard) if t is output or _same_numbers(t, output))
    return next(same, None)


def _same_numbers(left: Tensor, right: Tensor) -> bool:
    """The same memory, perhaps in another shape: squeeze and view change no number."""
    return left.data_ptr() == right.data_ptr() and left.numel() == right.numel()


class Behind:
    """A forward hook that passes the model's output through a function."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        self.change = change

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        assert isinstance(output, Tensor), "only models of one output are given such a hook"
        return self.change(output)


class Before:
    """A forward pre-hook that passes the model's first input through a function."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        self.change = change

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        first, *others = inputs
        return (self.change(first) if isinstance(first, Tensor) else first, *others)


def with_output(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], None]:
    """The operation that puts a function behind the model."""

    def operate(model: nn.Module) -> None:
        graft_behind(model, Behind(change))

    return operate


def with_input(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], None]:
    """The operation that puts a function before the model."""

    def operate(model: nn.Module) -> None:
        graft_before(model, Before(change))

    return operate
