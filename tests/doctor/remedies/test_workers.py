"""Tests of the seeds that workers are given."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from leadline.doctor.remedies.workers import own_streams


class Inner:
    """A transform with a generator of its own."""

    def __init__(self) -> None:
        self.own = random.Random(0)
        self.device = torch.Generator().manual_seed(0)


class Drawing(Dataset[Tensor]):
    """Numbers from four generators that it holds."""

    def __init__(self) -> None:
        self.new, self.old = np.random.default_rng(0), np.random.RandomState(0)
        self.transform = Inner()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        drawn = (
            self.new.random(),
            self.old.random(),
            self.transform.own.random(),
            float(torch.rand((), generator=self.transform.device)),
            np.random.random(),
        )
        return torch.tensor(drawn, dtype=torch.float64)


def alike(worker: int) -> None:
    np.random.seed(0)


def test_every_stream_differs_between_workers_and_epochs(make_setup: Any) -> None:
    loader = DataLoader(Drawing(), batch_size=1, num_workers=2, worker_init_fn=alike)
    sick = make_setup(batches=loader, model=lambda: nn.Linear(5, 1))
    before = torch.cat(list(sick.batches))
    assert torch.equal(before[0], before[1])
    healed = own_streams()(sick)
    torch.manual_seed(0)
    rows = torch.cat([*healed.batches, *healed.batches])
    for stream in rows.T:
        assert len(torch.unique(stream)) == 8
    torch.manual_seed(0)
    assert torch.equal(torch.cat(list(healed.batches)), rows[:4])
    assert loader.worker_init_fn is alike
