"""Examples: the first batches of a recorded loop, and a number for each example that passed.

Batches are copied as the model was given them, until 256 MB are full. Of every example a number is
kept that is equal for equal examples: the bits of up to 256 of its values, times fixed odd numbers,
summed in whole numbers. So an example that is evaluated after it was trained on is found again.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from leadline.core.taps import tensors_in

LIMIT = 256 * 2**20
"""Bytes of batches that are kept."""

VALUES = 256
"""Values of an example that its number is made of."""

MOST_ROWS = 1_000_000
"""Examples that are numbered, at most."""


@dataclass(kw_only=True, eq=False)
class RecordedBatch:
    """One call of a model: what it was given, and, once known, what it was held against.

    `loss` is the value that backward was called on. `item` says which part of the loader's batch
    the target is.
    """

    model: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    epoch: int
    targets: Any = None
    loss: Tensor | None = None
    grad: bool = True


@dataclass(kw_only=True, eq=False)
class Examples:
    """The batches kept so far; `full` when the limit was reached."""

    limit: int = LIMIT
    batches: list[RecordedBatch] = field(default_factory=list)
    bytes: int = 0
    rows: int = 0
    full: bool = False

    def keep(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, model: int, epoch: int, grad: bool
    ) -> int | None:
        """Copy what a model is given; the number of the batch, None when there is no room."""
        size = sum(t.numel() * t.element_size() for t in tensors_in((args, kwargs)))
        if self.full or self.bytes + 2 * size > self.limit:
            self.full = True
            return None
        self.bytes += size
        copies = _copied(args), _copied(kwargs)
        self.batches.append(
            RecordedBatch(model=model, args=copies[0], kwargs=copies[1], epoch=epoch, grad=grad)
        )
        return len(self.batches) - 1

    def complete(self, number: int | None, targets: Any, loss: Tensor | None = None) -> None:
        """Say what a kept batch was held against."""
        if number is None or self.batches[number].targets is not None:
            return
        self.bytes += sum(t.numel() * t.element_size() for t in tensors_in(targets))
        self.batches[number].targets = _copied(targets)
        self.batches[number].loss = loss

    def number_rows(self, value: Any) -> Tensor | None:
        """One whole number per example of the first tensor in a value."""
        tensor = next((t for t in tensors_in(value) if t.ndim), None)
        if tensor is None or self.rows >= MOST_ROWS or not tensor.numel():
            return None
        self.rows += len(tensor)
        return row_numbers(tensor)


def row_numbers(tensor: Tensor) -> Tensor:
    """A whole number per row, equal for rows of equal bits.

    >>> same = row_numbers(torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]))
    >>> bool(same[0] == same[2]), bool(same[0] == same[1])
    (True, False)
    """
    with torch.no_grad():
        rows = tensor.detach().reshape(len(tensor), -1)
        places, factors = _places(rows.shape[1], str(rows.device))
        chosen = rows[:, places]
        if chosen.is_complex():
            chosen = torch.view_as_real(chosen).sum(dim=-1)
        if chosen.is_floating_point():
            chosen = chosen.float().contiguous().view(torch.int32)
            chosen = chosen ^ (chosen >> 16)  # few-digit numbers have zeros in their lower bits
        return (chosen.to(torch.int32) * factors).sum(dim=1)  # products wrap around, alike for all


@functools.cache
def _places(width: int, device: str) -> tuple[Tensor, Tensor]:
    count = min(width, VALUES)
    places = torch.linspace(0, width - 1, count, dtype=torch.float64).round().long()
    generator = torch.Generator().manual_seed(1)
    factors = torch.randint(1, 2**31, (count,), generator=generator, dtype=torch.int32) | 1
    return places.to(device), factors.to(device)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_copied(entry) for entry in value))
    if isinstance(value, tuple | list):
        return type(value)(_copied(entry) for entry in value)
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    return value
