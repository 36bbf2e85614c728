"""Batches drawn once and kept, so that both arms of a trial see the same ones in the same order.

Whatever a user's loop runs over can be drawn: a list, a DataLoader, a generator that ends. Its own
position and generator are put back where they were; what can be run through only once is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from leadline.core.errors import MeasurementError
from leadline.core.seeds import preserved_random_state, seed_everything
from leadline.core.taps import tensors_in
from leadline.training.batches import Positioned

MEMORY = 2**30
"""Bytes of batches that are kept, at most; longer trials begin again with the first."""


class Drawn:
    """The first batches of a training, as many as were asked for so far, across its epochs.

    >>> drawn = Drawn([1, 2, 3], seed=0)
    >>> drawn.take(5)
    [1, 2, 3, 1, 2]
    >>> drawn.per_epoch
    3
    """

    def __init__(self, source: Iterable[Any], *, seed: int) -> None:
        self._source = source
        self._seed = seed
        self._kept: list[Any] = []
        self._bytes = 0
        self._closed = False
        self._counted: int | None = None
        self.limits: list[str] = []
        self.once = iter(source) is source if not isinstance(source, list | tuple) else False
        if self.once:
            self.limits.append(
                "the batches can be run through only once: the ones drawn here are gone for the "
                "training; pass a list or a DataLoader"
            )

    @property
    def per_epoch(self) -> int | None:
        """Batches in an epoch: what `len` says, or what one pass gave; None until one ended."""
        try:
            return len(self._source)  # type: ignore[arg-type]  # an iterable without len is caught
        except TypeError:
            return self._counted

    def take(self, count: int) -> list[Any]:
        """The first `count` batches; drawn now, as far as they were not."""
        if len(self._kept) < count and not self._closed:
            self._draw(count)
        if not self._kept:
            raise MeasurementError(
                expected="a Setup with at least one batch",
                received="batches that are empty",
                remedy="check the path and the filter of the data, and drop_last",
            )
        rounds = -(-count // len(self._kept))
        return (self._kept * rounds)[:count]

    def _draw(self, count: int) -> None:
        """Draw from the start again, for streams cannot be stopped and gone on with elsewhere."""
        source = self._source
        position = source.state_dict() if isinstance(source, Positioned) else None
        generator = getattr(source, "generator", None)
        own = generator.get_state() if isinstance(generator, torch.Generator) else None
        fresh = not self.once
        with preserved_random_state():
            seed_everything(self._seed)
            if fresh:
                self._kept, self._bytes = [], 0
            try:
                self._fill(count)
            finally:
                if isinstance(source, Positioned) and position is not None:
                    source.load_state_dict(position)
                if isinstance(generator, torch.Generator) and own is not None:
                    generator.set_state(own)

    def _fill(self, count: int) -> None:
        while len(self._kept) < count:
            before = len(self._kept)
            for batch in self._epoch():
                self._kept.append(batch)
                self._bytes += _size(batch)
                if self._bytes > MEMORY:
                    self._closed = True
                    self.limits.append(
                        f"only {len(self._kept)} batches were kept (1 GiB); longer trials go "
                        "through them again"
                    )
                    return
                if len(self._kept) >= count:
                    return
            if self._counted is None:
                self._counted = len(self._kept) - before
            if self.once or len(self._kept) == before:
                self._closed = True
                return

    def _epoch(self) -> Iterator[Any]:
        try:
            yield from self._source
        except Exception as error:
            if not self._kept:
                raise MeasurementError(
                    expected="batches that can be run through",
                    received=f"{type(error).__name__}: {error}",
                    remedy="run through them alone until they come: for batch in batches: pass",
                ) from error
            self._closed = True
            self.limits.append(
                f"the batches ended after {len(self._kept)} with {type(error).__name__}: {error}"
            )


def _size(batch: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(batch))
