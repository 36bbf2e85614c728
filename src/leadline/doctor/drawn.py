"""Batches drawn once and kept, so that both arms of a trial see the same ones in the same order.

Whatever a user's loop runs over can be drawn: a list, a DataLoader, a generator that ends. Its own
position and generator are put back where they were; what can be run through only once is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from leadline.core.errors import MeasurementError
from leadline.core.seeds import preserved_random_state, seed_everything
from leadline.core.taps import tensors_in
from leadline.training.batches import Positioned

MEMORY = 2**30
"""Bytes of batches that are kept, at most; longer trials begin again with the first."""


class Drawn:
    """The first batches of a training, as many as were asked for so far, across its epochs.

    `ahead` is what the training does between its seed and its first batch: to make a model draws
    random numbers, and a shuffled order comes out of those that follow.

    >>> drawn = Drawn([1, 2, 3], seed=0)
    >>> drawn.take(5)
    [1, 2, 3, 1, 2]
    >>> drawn.per_epoch
    3
    """

    def __init__(
        self, source: Iterable[Any], *, seed: int, ahead: Callable[[], object] | None = None
    ) -> None:
        self._source = source
        self._seed = seed
        self._ahead = ahead
        self._kept: list[Any] = []
        self._bytes = 0
        self._closed = False
        self._counted: int | None = None
        self._copies: dict[int, Any] = {}
        self.limits: list[str] = []
        self.once = isinstance(source, Iterator)  # asked without iter(), which may draw numbers
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
        own = [(generator, generator.get_state()) for generator in _generators(source)]
        before = self._kept[:1]
        with preserved_random_state():
            seed_everything(self._seed)
            if self._ahead is not None:
                self._ahead()
            if not self.once:
                self._kept, self._bytes = [], 0
            try:
                self._fill(count)
            finally:
                if isinstance(source, Positioned) and position is not None:
                    source.load_state_dict(position)
                for generator, state in own:
                    generator.set_state(state)
        if before and self._kept and not _same(before[0], self._kept[0]):
            self._tell(
                "the batches come out differently each time they are run through: what was seen "
                "here is one of many courses of the training"
            )

    def _fill(self, count: int) -> None:
        while len(self._kept) < count and not self._closed:
            before = len(self._kept)
            for batch in self._epoch():
                self._kept.append(self._own(batch))
                self._bytes += _size(batch)
                if self._bytes > MEMORY:
                    self._closed = True
                    self._tell(
                        f"only {len(self._kept)} batches were kept (1 GiB); longer trials go "
                        "through them again"
                    )
                    return
                if len(self._kept) >= count:
                    return
            if self._counted is None:
                self._counted = len(self._kept) - (0 if self.once else before)
            if self.once or len(self._kept) == before:
                self._closed = True
                return

    def _epoch(self) -> Iterator[Any]:
        """One pass. A generator is not delegated to, for it would be closed with this one."""
        try:
            for batch in self._source:  # noqa: UP028 - see above
                yield batch
        except Exception as error:
            if not self._kept:
                raise MeasurementError(
                    expected="batches that can be run through",
                    received=f"{type(error).__name__}: {error}",
                    remedy="run through them alone until they come: for batch in batches: pass",
                ) from error
            self._closed = True
            self._tell(
                f"the batches ended after {len(self._kept)} with {type(error).__name__}: {error}"
            )

    def _own(self, batch: Any) -> Any:
        """A copy of what the user may hold too, for some networks write into their inputs.

        What a list holds twice, or in each epoch, is the same copy each time.
        """
        if isinstance(self._source, DataLoader | Positioned):
            return batch  # made for whoever asked
        if not isinstance(self._source, list | tuple):
            return _copy(batch)
        if id(batch) not in self._copies:
            self._copies[id(batch)] = _copy(batch)
        return self._copies[id(batch)]

    def _tell(self, limit: str) -> None:
        if limit not in self.limits:
            self.limits.append(limit)


def _generators(source: Any) -> list[torch.Generator]:
    """The generators that a DataLoader and its samplers draw from."""
    sampler = getattr(source, "sampler", None)
    batched = getattr(getattr(source, "batch_sampler", None), "sampler", None)
    owners = (source, getattr(source, "dataset", None), sampler, batched)
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def _copy(batch: Any) -> Any:
    """The batch with tensors of its own; what is no tuple, list or mapping of them stays."""
    if isinstance(batch, Tensor):
        return batch.clone()
    if isinstance(batch, Mapping):
        return {key: _copy(entry) for key, entry in batch.items()}
    if isinstance(batch, tuple | list) and not hasattr(batch, "_fields"):
        return type(batch)(_copy(entry) for entry in batch)
    return batch


def _same(left: Any, right: Any) -> bool:
    """Whether two batches hold the same numbers, bit for bit; NaN is the same as NaN."""
    pairs = zip(tensors_in(left), tensors_in(right), strict=False)
    return all(
        a.dtype == b.dtype and torch.equal(a.nan_to_num(nan=0.5), b.nan_to_num(nan=0.5))
        for a, b in pairs
        if a.layout is torch.strided and b.layout is torch.strided
    )


def _size(batch: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(batch))
