"""Any iterable of batches, with a position that can be saved and found again.

A loader of Leadline knows its own state as (seed, epoch, offset). Any other iterable, a
`DataLoader` say, is replayed: the random state at the start of the epoch is kept, and to find the
place again the epoch is begun from it and the batches already used are drawn and dropped. A
`DataLoader`'s own generator is kept in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from leadline.core.errors import TrainingError
from leadline.core.seeds import capture_random_state, restore_random_state


@runtime_checkable
class Positioned(Protocol):
    """An iterable of batches that can say where it is and go there."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...

    def __len__(self) -> int: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class ReplayedBatches:
    """Any iterable whose position is found again by drawing the epoch from its start."""

    def __init__(self, source: Iterable[tuple[Tensor, Tensor]]) -> None:
        self._source = source
        self._used = 0
        self._start = capture_random_state()
        self._generator: torch.Generator | None = getattr(source, "generator", None)
        self._own_start = self._own()

    def __len__(self) -> int:
        try:
            return len(self._source)  # type: ignore[arg-type]  # a source without len is told so below
        except TypeError:
            raise TrainingError(
                expected="batches that know how many they are in an epoch (`len`)",
                received=f"a {type(self._source).__name__} without a length",
                remedy="pass a list of batches or a DataLoader",
            ) from None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        to_skip = self._used
        now = capture_random_state()
        if to_skip:
            restore_random_state(self._start)
            if self._generator is not None and self._own_start is not None:
                self._generator.set_state(self._own_start)
        else:
            self._start = now
            self._own_start = self._own()
        iterator = iter(self._source)
        for _ in range(to_skip):
            next(iterator)
        if to_skip:
            restore_random_state(now)
        for batch in iterator:
            self._used += 1
            yield batch
        self._used = 0

    def state_dict(self) -> dict[str, Any]:
        start = self._start.state_dict()
        return {
            "used": self._used,
            "start": start,
            "own_start": self._own_start,
            "own": self._own(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._used = state["used"]
        self._start = type(self._start).from_state_dict(state["start"])
        self._own_start = state["own_start"]
        if self._generator is not None:
            self._generator.set_state(state["own"])

    def _own(self) -> Tensor | None:
        return None if self._generator is None else self._generator.get_state()


def positioned(batches: Iterable[tuple[Tensor, Tensor]]) -> Positioned:
    """`batches` as they are when they know their position, otherwise replayed."""
    return batches if isinstance(batches, Positioned) else ReplayedBatches(batches)
