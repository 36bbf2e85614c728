"""Tests of workers that draw the same numbers; each starts two processes, twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from leadline.doctor.causes.suspected.workers import certain
from leadline.doctor.patient import Patient
from leadline.training.setup import Setup


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Numbers with noise from a generator of its own, NumPy's, torch's, or none."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.own = np.random.default_rng(0)

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise: dict[str, Callable[[], Any]] = {
            "own": lambda: self.own.normal(size=4),
            "numpy": lambda: np.random.normal(size=4),
            "torch": lambda: torch.randn(4).numpy(),
            "none": lambda: np.zeros(4),
        }
        values = torch.tensor(noise[self.kind](), dtype=torch.float32)
        return values + index, torch.tensor(index % 3)


def seed_all_alike(worker: int) -> None:
    np.random.seed(0)


def patient(kind: str, *, workers: int = 2, init: Any = None) -> Patient:
    loader = DataLoader(Noisy(kind), batch_size=8, num_workers=workers, worker_init_fn=init)
    return Patient(
        Setup(
            model=lambda: nn.Linear(4, 3),
            batches=loader,
            loss=functional.cross_entropy,
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.01),
        ),
        seconds=2,
    )


@pytest.mark.parametrize(("kind", "init"), [("own", None), ("numpy", seed_all_alike)])
def test_workers_that_draw_the_same_are_named_and_healed(named: Any, kind: str, init: Any) -> None:
    sick = patient(kind, init=init)
    assert named(certain(sick)) == ["error data_worker_seed_dup"]
    (finding,) = certain(sick)
    assert not list(certain(Patient(finding.change(sick.setup), seconds=2)))


def test_one_worker_that_draws_the_same_in_every_epoch_is_warned_of(named: Any) -> None:
    assert named(certain(patient("own", workers=1))) == ["warning data_worker_seed_dup"]


@pytest.mark.parametrize("kind", ["numpy", "torch", "none"])
def test_workers_that_torch_seeds_are_healthy(kind: str) -> None:
    assert not list(certain(patient(kind)))


def test_a_loader_without_workers_is_not_asked() -> None:
    assert not list(certain(patient("own", workers=0)))
