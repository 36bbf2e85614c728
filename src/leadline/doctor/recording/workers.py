"""Workers: where the random streams of a loader's processes begin, told from inside of them."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from leadline.core.seeds import preserved_random_state

Streams = Mapping[str, str]


class Reports:
    """A loader's workers send where their random streams stand once they are set up."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        context: Any = loader.multiprocessing_context or torch.multiprocessing
        self._queue: Any = context.SimpleQueue()
        self._loader = loader

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """Workers that are started inside will report."""
        own = self._loader.worker_init_fn
        self._loader.worker_init_fn = _Reporting(own, self._queue)
        try:
            yield
        finally:
            self._loader.worker_init_fn = own

    def arrived(self) -> list[tuple[int, Streams]]:
        """What has come so far: the worker's number and its streams."""
        found = []
        while not self._queue.empty():
            found.append(self._queue.get())
        return found


class _Reporting:
    """The user's `worker_init_fn`, and then a report."""

    def __init__(self, own: Callable[[int], Any] | None, queue: Any) -> None:
        self._own = own
        self._queue = queue

    def __call__(self, worker: int) -> None:
        if self._own is not None:
            self._own(worker)
        info = get_worker_info()
        self._queue.put((worker, streams(info.dataset if info is not None else None)))


def streams(dataset: Any) -> dict[str, str]:
    """A fingerprint of each random stream: Python's, NumPy's, torch's, and those a data set uses.

    >>> sorted(streams(None))
    ["NumPy's generator", "Python's generator", "torch's generator"]
    """
    numpy_state: Any = np.random.get_state()
    found = {
        "Python's generator": _hash(repr(random.getstate()).encode()),
        "NumPy's generator": _hash(numpy_state[1].tobytes() + bytes(str(numpy_state[2]), "ascii")),
        "torch's generator": _hash(torch.get_rng_state().numpy().tobytes()),
    }
    held = {n: v for n, v in (getattr(dataset, "__dict__", None) or {}).items() if _draws(v)}
    if held:
        used = _used(dataset, held)
        found |= {f"the data set's {n!r}": _state(v) for n, v in held.items() if n in used}
    return found


def _draws(value: Any) -> bool:
    return isinstance(
        value, np.random.Generator | np.random.RandomState | random.Random | torch.Generator
    )


def _used(dataset: Any, held: dict[str, Any]) -> set[str]:
    """Those of its generators that a data set draws from for an example; asked of a copy."""
    if not hasattr(dataset, "__getitem__"):
        return set()
    twin = copy.copy(dataset)
    twin.__dict__.update({name: copy.deepcopy(value) for name, value in held.items()})
    before = {name: _state(twin.__dict__[name]) for name in held}
    with preserved_random_state(), contextlib.suppress(Exception):
        twin[0]
    return {name for name in held if _state(twin.__dict__[name]) != before[name]}


def _state(value: Any) -> str:
    if isinstance(value, np.random.Generator):
        return _hash(repr(value.bit_generator.state).encode())
    if isinstance(value, np.random.RandomState):
        state: Any = value.get_state()
        return _hash(state[1].tobytes() + bytes(str(state[2]), "ascii"))
    if isinstance(value, random.Random):
        return _hash(repr(value.getstate()).encode())
    return _hash(value.get_state().numpy().tobytes())


def _hash(value: bytes) -> str:
    return hashlib.blake2b(value, digest_size=8).hexdigest()
