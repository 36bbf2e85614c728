"""Remedies of a DataLoader's workers: every one draws its own random numbers, anew each epoch."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from leadline.doctor.remedy import Remedy
from leadline.training.setup import Setup


class SeededWorker:
    """A worker_init_fn that calls the user's, and then seeds every stream from the worker's seed.

    Streams are NumPy's and Python's own, and those that the data set holds: attributes that are
    generators of NumPy, Python or torch. torch gives each worker another seed in each epoch.
    """

    def __init__(self, user: Callable[[int], None] | None) -> None:
        self.user = user

    def __call__(self, worker: int) -> None:
        """Seed the streams of the process it is called in, which is a worker's."""
        if self.user is not None:
            self.user(worker)
        info = get_worker_info()
        assert info is not None, "only workers are initialised"
        np.random.seed(info.seed % 2**32)
        random.seed(info.seed)
        torch.manual_seed(info.seed)
        _seed_streams(info.dataset, info.seed, depth=0)


def _seed_streams(holder: Any, seed: int, *, depth: int) -> None:
    for name, value in list(vars(holder).items()) if hasattr(holder, "__dict__") else []:
        if isinstance(value, np.random.Generator):
            setattr(holder, name, np.random.default_rng(seed))
        elif isinstance(value, np.random.RandomState):
            setattr(holder, name, np.random.RandomState(seed % 2**32))
        elif isinstance(value, random.Random):
            setattr(holder, name, random.Random(seed))
        elif isinstance(value, torch.Generator):
            value.manual_seed(seed)
        elif depth < 3 and not isinstance(value, type | torch.Tensor | np.ndarray):
            _seed_streams(value, seed, depth=depth + 1)


def own_streams() -> Remedy:
    """Seed each worker's random streams by its own seed, which torch draws anew for every epoch."""

    def apply(setup: Setup) -> Setup:
        loader = copy.copy(setup.batches)
        assert isinstance(loader, DataLoader), "found in one"
        loader.worker_init_fn = SeededWorker(loader.worker_init_fn)
        return replace(setup, batches=loader)

    return Remedy(
        title="seed the random numbers of each worker by its own seed",
        apply=apply,
        lines=(
            "+ def init(worker):",
            "+     np.random.seed(torch.initial_seed() % 2**32)",
            "+ DataLoader(data, num_workers=n, worker_init_fn=init)",
        ),
    )
