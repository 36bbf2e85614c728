"""Loaders: what comes out of data loaders, epoch by epoch, and the seeds that are set."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from leadline.doctor.recording.contents import digest
from leadline.doctor.recording.objects import loader_card
from leadline.doctor.recording.recorder import Recorder, parts_of
from leadline.doctor.recording.workers import Reports

EPOCHS_ASKED = 2
"""Epochs whose workers report: the second tells whether chance begins anew."""


class LoaderListener:
    """Hears of the epochs of each DataLoader, of its batches, and of seeds."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._loader_of: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._drawn: dict[int, int] = {}
        self._asked: Counter[int] = Counter()
        self._seeded_at = -1  # how many batches had been drawn
        self._reports: list[tuple[int, int, Reports]] = []  # loader, epoch, and what comes

    def listen(self) -> None:
        """Stand beside DataLoader and the seeds."""
        points = self._recorder.points
        points.around(DataLoader, "__iter__", self._begin)
        points.around(_BaseDataLoaderIter, "__next__", self._next)
        points.everywhere(torch, "manual_seed", self._seed)
        points.around(np.random, "seed", self._seed)
        points.everywhere(torch, "set_rng_state", self._restored)
        points.around(np.random, "set_state", self._restored)

    def _begin(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        recorder, loader = self._recorder, args[0]
        card = recorder.loaders.find(loader)
        if card is None:
            card = loader_card(loader, number=len(recorder.loaders))
            recorder.loaders.add(loader, card)
        recorder.emit("epoch_begun", card.number, data=digest(loader.dataset))
        self._drawn[card.number] = 0
        iterator = self._asking(loader, card.number, lambda: self._quietly(original, args, kwargs))
        self._loader_of[iterator] = card.number
        return iterator

    def _asking(self, loader: DataLoader[Any], number: int, begin: Callable[[], Any]) -> Any:
        """Let the workers of the first epochs say where their random streams begin."""
        self.collect()
        if not loader.num_workers or self._asked[number] >= EPOCHS_ASKED:
            return begin()
        self._asked[number] += 1
        reports = Reports(loader)
        self._reports.append((number, self._asked[number], reports))
        with reports.asked():
            return begin()

    def collect(self) -> None:
        """Write down what workers have reported."""
        for number, epoch, reports in self._reports:
            for worker, streams in reports.arrived():
                self._recorder.emit("worker", number, worker=worker, epoch=epoch, streams=streams)

    def _next(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        recorder = self._recorder
        number = self._loader_of.get(args[0], -1)
        try:
            batch = self._quietly(original, args, kwargs)
        except StopIteration:
            if number >= 0:
                recorder.emit("epoch_ended", number, batches=self._drawn[number])
                recorder.epoch += 1
                self.collect()
            raise
        if number >= 0:
            self._drawn[number] += 1
        recorder.batch, recorder.loader = parts_of(batch), number
        recorder.drawn += 1
        return batch

    def _quietly(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        recorder = self._recorder
        outer, recorder.in_loader = recorder.in_loader, True
        try:
            with recorder.unheard():
                return original(*args, **kwargs)
        finally:
            recorder.in_loader = outer

    def _restored(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._seeded_at == self._recorder.drawn:
            self._recorder.emit("stream_restored")
        return original(*args, **kwargs)

    def _seed(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        seed = args[0] if args else kwargs.get("seed")
        if isinstance(seed, int):
            self._seeded_at = self._recorder.drawn
            self._recorder.emit("seeded", seed=seed, in_loader=self._recorder.in_loader)
        return original(*args, **kwargs)
