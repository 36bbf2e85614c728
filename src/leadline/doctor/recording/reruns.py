"""Reruns: contexts in which a loop runs as it would with a line of it changed.

Each is for one fault. Several can be open at once, one inside the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim import Optimizer

from leadline.core.taps import every_update
from leadline.doctor.recording.points import Points


@contextlib.contextmanager
def gradients_cleared() -> Iterator[None]:
    """Before the first backward pass behind an update, the gradients that it used are dropped."""
    used: dict[int, Optimizer] = {}

    def after(optimizer: Optimizer) -> None:
        used[id(optimizer)] = optimizer

    def backward(original: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        for optimizer in used.values():
            optimizer.zero_grad(set_to_none=True)
        used.clear()
        return original(*args, **kwargs)

    with Points() as points, every_update(before=lambda optimizer: None, after=after):
        points.everywhere(torch.autograd, "backward", backward)
        yield
