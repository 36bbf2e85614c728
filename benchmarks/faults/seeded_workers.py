"""The fault of random numbers that repeat: augmentations drawn alike in every worker or epoch."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from fault import Fault
from program import Program
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data import Examples

NOISE = 0.3  # deviation of what is added to an input


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Adds noise from NumPy's global generator to an example."""

    def __init__(self, examples: Examples) -> None:
        self.inputs, self.targets = examples.inputs, examples.targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        example = self.inputs[index]
        noise = np.random.standard_normal(tuple(example.shape)).astype(np.float32)
        return example + NOISE * torch.from_numpy(noise), self.targets[index]


class SeededNoisy(Noisy):
    """Seeds the generator whenever an example is asked for."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        np.random.seed(0)
        return super().__getitem__(index)


class OwnNoisy(Noisy):
    """Has a generator of its own; every worker gets a copy of it, at every epoch the same one."""

    def __init__(self, examples: Examples) -> None:
        super().__init__(examples)
        self.generator = np.random.default_rng(0)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        example = self.inputs[index]
        noise = self.generator.standard_normal(tuple(example.shape), dtype=np.float32)
        return example + NOISE * torch.from_numpy(noise), self.targets[index]


def seed_alike(worker: int) -> None:
    """A `worker_init_fn` that gives every worker the same seed."""
    np.random.seed(0)


def noisy(
    program: Program, *, kind: type[Noisy] = Noisy, workers: int = 0, init: Any = None
) -> Program:
    """Batches with noise added, by so many workers."""

    def feed(program: Program) -> Iterable[Any]:
        return DataLoader(
            kind(program.data().train),
            batch_size=program.batch_size,
            shuffle=True,
            num_workers=workers,
            worker_init_fn=init,
        )

    return program.but(feed=feed)


NOTE = "the noise comes again and again; the score hardly suffers, but the augmentation is lost"

FAULTS = (
    Fault(
        cause="data_worker_seed_dup",
        broken=partial(noisy, workers=2, init=seed_alike),
        fixed=partial(noisy, workers=2),
        variant="init",
        setups=("keras-mnist",),
        loops=("mlp-mnist", "conv-speech"),
        notes=NOTE,
    ),
    Fault(
        cause="data_worker_seed_dup",
        broken=partial(noisy, workers=2, kind=OwnNoisy),
        fixed=partial(noisy, workers=2),
        variant="own",
        setups=("lstm-oil",),
        loops=("conv-mnist", "pairs-of-digits"),
        notes=NOTE,
    ),
    Fault(
        cause="data_worker_seed_dup",
        broken=partial(noisy, kind=SeededNoisy),
        fixed=noisy,
        variant="each",
        setups=("mlp-digits",),
        loops=("mlp-housing",),
        notes="every example gets the same noise, at every epoch: no augmentation at all",
    ),
)
