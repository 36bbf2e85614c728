"""Losses: those of every step, gathered on the device, in memory that stays small.

A loss on a device is copied as it is; 256 of them become one tensor, and nothing waits for the
device until they are read. Once there are LONGEST of them, every two neighbours become one: their
mean and their highest, so that a spike stays visible and NaN stays NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from leadline.core.errors import MeasurementError

FOLD = 256
"""Losses that are gathered before they become one tensor."""

LONGEST = 2**14
"""Points that are kept, at most."""


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """Mean and highest loss of every `stride` steps; the steps they end at."""

    stride: int
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    highest: tuple[float, ...]


class Losses:
    """Gathers one loss per step.

    >>> losses = Losses()
    >>> for value in (3.0, 2.0, 1.0):
    ...     losses.append(torch.tensor(value))
    >>> losses.read()
    LossCurve(stride=1, steps=(1, 2, 3), mean=(3.0, 2.0, 1.0), highest=(3.0, 2.0, 1.0))
    """

    def __init__(self, *, start: int = 0) -> None:
        self._start = start
        self._stride = 1
        self._pending: list[Tensor | float] = []
        self._folded: list[Tensor] = []  # each [2, n]: means and highest
        self._length = 0

    def append(self, loss: Tensor | float) -> None:
        """Take the loss of the next step, one number; it is copied, not read."""
        if isinstance(loss, Tensor):
            if loss.ndim and loss.numel() != 1:
                raise MeasurementError(
                    expected="a loss that is one number",
                    received=f"a tensor of shape {tuple(loss.shape)}",
                    remedy="pass loss.mean(), or what backward() is called on",
                )
            # On a CPU there is nothing to wait for, and a number is ten times as fast as a copy.
            loss = loss.item() if loss.is_cpu else loss.detach().clone()
        self._pending.append(loss)
        if len(self._pending) >= max(FOLD, self._stride):
            self._fold()

    def read(self) -> LossCurve:
        """All so far; this waits for the device. Steps of an unfinished stride count as one."""
        parts = [*self._folded]
        if self._pending:
            row = _row(self._pending)
            whole = len(row) // self._stride * self._stride
            parts += [_condensed(row[:whole], self._stride)] if whole else []
            parts += [_condensed(row[whole:], len(row) - whole)] if whole < len(row) else []
        points = torch.cat(parts, dim=1) if parts else torch.empty(2, 0)
        mean, highest = points.tolist()
        done = self._length * self._stride + len(self._pending)
        ends = [min((index + 1) * self._stride, done) for index in range(len(mean))]
        return LossCurve(
            stride=self._stride,
            steps=tuple(self._start + end for end in ends),
            mean=tuple(mean),
            highest=tuple(highest),
        )

    def _fold(self) -> None:
        points = _condensed(_row(self._pending), self._stride)
        self._pending = []
        self._folded.append(points)
        self._length += points.shape[1]
        if self._length >= LONGEST:
            mean, highest = torch.cat(self._folded, dim=1)
            self._folded = [torch.stack((mean.view(-1, 2).mean(1), highest.view(-1, 2).amax(1)))]
            self._length //= 2
            self._stride *= 2


def _row(losses: list[Tensor | float]) -> Float[Tensor, " N"]:
    """The losses as one tensor on the device where the latest is."""
    latest = next((x for x in reversed(losses) if isinstance(x, Tensor)), None)
    if latest is None:
        return torch.tensor(losses, dtype=torch.float32)
    row = [torch.as_tensor(x, dtype=torch.float32, device=latest.device) for x in losses]
    return torch.stack([x.reshape(()) for x in row])


def _condensed(row: Float[Tensor, " N"], stride: int) -> Float[Tensor, "2 M"]:
    groups = row.view(-1, stride)
    return torch.stack((groups.mean(1), groups.amax(1)))
