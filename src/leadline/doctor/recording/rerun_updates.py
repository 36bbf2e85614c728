"""Reruns of the update: backward, clearing, clipping and step come as they should.

Each changes one line of whatever loop runs inside. Several can be open at once, in each other.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad
from torch.optim import Optimizer

from leadline.core.taps import every_update, tensors_in
from leadline.doctor.recording.points import Points

Original = Callable[..., Any]


def _ignore(optimizer: Optimizer) -> None:
    """Nothing to do around this step."""


@contextlib.contextmanager
def gradients_cleared() -> Iterator[None]:
    """Before the first backward pass behind an update, the gradients that it used are dropped."""
    used: dict[int, Optimizer] = {}

    def after(optimizer: Optimizer) -> None:
        used[id(optimizer)] = optimizer

    def backward(original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for optimizer in used.values():
            optimizer.zero_grad(set_to_none=True)
        used.clear()
        return original(*args, **kwargs)

    with Points() as points, every_update(before=_ignore, after=after):
        points.everywhere(torch.autograd, "backward", backward)
        yield


@contextlib.contextmanager
def clearing_left_to_updates() -> Iterator[None]:
    """`zero_grad` does nothing by itself: gradients go once an update has used them."""

    def leave(original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The loop's own call, which comes at the wrong place."""

    with Points() as points:
        points.around_classes(Optimizer, "zero_grad", leave)
        points.around(nn.Module, "zero_grad", leave)

        def after(optimizer: Optimizer) -> None:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

        with every_update(before=_ignore, after=after):
            yield


@contextlib.contextmanager
def steps_taken() -> Iterator[None]:
    """After each backward pass every optimizer steps that holds a gradient."""
    known: weakref.WeakSet[Optimizer] = weakref.WeakSet()

    def seen(original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known.add(args[0])
        return original(*args, **kwargs)

    def backward(original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = original(*args, **kwargs)
        for optimizer in tuple(known):
            held = [p for group in optimizer.param_groups for p in group["params"]]
            if any(p.grad is not None for p in held):
                optimizer.step()
        return result

    with Points() as points:
        points.around(Optimizer, "__init__", seen)
        points.around_classes(Optimizer, "zero_grad", seen)
        points.everywhere(torch.autograd, "backward", backward)
        yield


@contextlib.contextmanager
def loss_multiplied(factor: float) -> Iterator[None]:
    """Backward passes begin with the loss times a factor: -1 turns a sign, 1/4 makes a mean."""

    def backward(original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = [_times(value, factor) for value in args[:1]]
        named = {k: _times(v, factor) if k == "tensors" else v for k, v in kwargs.items()}
        return original(*changed, *args[1:], **named)

    with Points() as points:
        points.everywhere(torch.autograd, "backward", backward)
        yield


def _times(value: Any, factor: float) -> Any:
    if isinstance(value, Tensor):
        return value * factor
    return tuple(tensor * factor for tensor in tensors_in(value))


@contextlib.contextmanager
def clipping_before_steps() -> Iterator[None]:
    """Gradients are clipped right before the step that uses them, wherever the loop clips."""
    wanted: dict[str, Callable[[], Any]] = {}
    inside = [False]

    def keep(original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = args[0] if args else kwargs["parameters"]
        parameters = [given] if isinstance(given, Tensor) else list(given)
        rest = {k: v for k, v in kwargs.items() if k != "parameters"}

        def clip() -> Any:
            return original(parameters, *args[1:], **rest)

        if inside[0]:
            return clip()
        wanted[original.__name__] = clip
        return torch.tensor(0.0) if original.__name__ == "clip_grad_norm_" else None

    def before(optimizer: Optimizer) -> None:
        inside[0] = True
        for clip in wanted.values():
            clip()
        inside[0] = False

    with Points() as points, every_update(before=before, after=_ignore):
        points.everywhere(clip_grad, "clip_grad_norm_", keep)
        points.everywhere(clip_grad, "clip_grad_value_", keep)
        yield


@contextlib.contextmanager
def norms_clipped_at(most: float) -> Iterator[None]:
    """`clip_grad_norm_` clips at another norm."""

    def clip(original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rest = {k: v for k, v in kwargs.items() if k not in ("parameters", "max_norm")}
        given = args[0] if args else kwargs["parameters"]
        return original(given, most, *args[2:], **rest)

    with Points() as points:
        points.everywhere(clip_grad, "clip_grad_norm_", clip)
        yield


@contextlib.contextmanager
def optimizers_kept() -> Iterator[None]:
    """A new optimizer for parameters that had one of its class goes on with that one's state."""
    known: list[Optimizer] = []

    def make(original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        original(*args, **kwargs)
        fresh: Optimizer = args[0]
        held = {id(p) for group in fresh.param_groups for p in group["params"]}
        for old in reversed(known):
            own = {id(p) for group in old.param_groups for p in group["params"]}
            if type(old) is type(fresh) and own == held:
                fresh.state = old.state
                for group, before in zip(fresh.param_groups, old.param_groups, strict=False):
                    group["lr"] = before["lr"]
                return
        known.append(fresh)

    with Points() as points:
        points.around(Optimizer, "__init__", make)
        yield


@contextlib.contextmanager
def bfloat16_instead() -> Iterator[None]:
    """Autocast computes in bfloat16, which does not overflow, and nothing scales the loss."""

    def cast(original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        original(args[0], args[1], dtype=torch.bfloat16, **_without(kwargs, "dtype"))

    def scale(original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        original(*args, **_without(kwargs, "enabled"), enabled=False)

    with Points() as points:
        points.around(torch.amp.autocast_mode.autocast, "__init__", cast)
        points.around(torch.amp.GradScaler, "__init__", scale)
        yield


def _without(kwargs: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key != name}
