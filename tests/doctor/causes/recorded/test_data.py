"""Tests that sorted examples, contents that change and repeated chance are found."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from leadline.doctor.causes.recorded.data import signs
from leadline.doctor.record import record

Digits = tuple[Tensor, Tensor]
Proven = Callable[[Callable[[], object], str], None]
Verdict = Callable[[Callable[[], object]], list[str]]


def train(loader: Any, *, epochs: int = 3, between: Callable[[], object] = int) -> None:
    model = nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        between()
        for inputs, targets in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()


def in_order(digits: Digits) -> TensorDataset:
    order = digits[1].argsort(stable=True)
    return TensorDataset(digits[0][order], digits[1][order])


def test_examples_sorted_by_class_are_proven(digits: Digits, proven: Proven) -> None:
    data = in_order(digits)
    proven(lambda: train(DataLoader(data, batch_size=32)), "shuffle_missing")


def test_sorted_examples_are_found_without_a_loader_too(digits: Digits, verdict: Verdict) -> None:
    images, labels = in_order(digits).tensors
    assert verdict(lambda: train(list(zip(images.split(32), labels.split(32), strict=True)))) == [
        "error shuffle_missing"
    ]


def test_an_order_without_classes_in_it_is_healthy(digits: Digits, verdict: Verdict) -> None:
    assert verdict(lambda: train(DataLoader(TensorDataset(*digits), batch_size=32))) == []


class Scaling(Dataset[tuple[Tensor, Tensor]]):
    """It divides by 2 what it holds, each time it is read."""

    def __init__(self, digits: Digits) -> None:
        self.images, self.labels = digits[0].clone(), digits[1]

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        image /= 2
        return image, self.labels[index]


def test_a_data_set_that_changes_what_it_holds_is_proven(digits: Digits, proven: Proven) -> None:
    proven(
        lambda: train(DataLoader(Scaling(digits), batch_size=32, shuffle=True)),
        "data_modified_in_place",
    )


class Kept(Scaling):
    """It shuffles what it holds before each epoch, or fills a cache while it is read."""

    def __init__(self, digits: Digits) -> None:
        super().__init__((digits[0].repeat(3, 1), digits[1].repeat(3)))
        self.cache = torch.zeros_like(self.images)
        self.order = np.arange(len(self))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = int(self.order[index])
        self.cache[row] = self.images[row]
        return self.cache[row].clone(), self.labels[row]

    def shuffle_order(self) -> None:
        np.random.default_rng(0).shuffle(self.order)

    def shuffle_rows(self) -> None:
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        self.images, self.labels = self.images[order], self.labels[order]


@pytest.mark.parametrize("shuffle", [Kept.shuffle_order, Kept.shuffle_rows, len])
def test_another_order_and_a_cache_that_fills_up_are_no_change(
    digits: Digits, verdict: Verdict, shuffle: Callable[[Kept], object]
) -> None:
    data = Kept(digits)
    loader = DataLoader(data, batch_size=64, shuffle=True)
    assert verdict(lambda: train(loader, epochs=4, between=lambda: shuffle(data))) == []


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """It adds noise from one of the random streams."""

    def __init__(self, digits: Digits, draw: Callable[[], float]) -> None:
        self.digits, self.draw = digits, draw
        self.generator = np.random.default_rng(0)

    def __len__(self) -> int:
        return 128

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.digits[0][index] + 0.1 * self.draw(), self.digits[1][index]


class Seeded(Noisy):
    """It draws from a generator that it was made with, and that each worker gets a copy of."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.digits[0][index] + 0.1 * self.generator.normal(), self.digits[1][index]


def same_numpy(worker: int) -> None:
    np.random.seed(0)


def own_numpy(worker: int) -> None:
    np.random.seed(torch.initial_seed() % 2**32)
    random.seed(worker)


@pytest.mark.parametrize(
    ("kind", "initialise", "stream"),
    [(Noisy, same_numpy, "NumPy's generator"), (Seeded, None, "the data set's 'generator'")],
)
def test_workers_that_draw_the_same_numbers_are_proven(
    digits: Digits, kind: type[Noisy], initialise: Any, stream: str
) -> None:
    data = kind(digits, np.random.normal)
    loader = DataLoader(data, batch_size=32, shuffle=True, num_workers=2, worker_init_fn=initialise)
    with record() as tape:
        train(loader, epochs=1)
    (finding,) = [f for f in signs(tape) if f.severity != "note"]
    assert (finding.cause, finding.proven) == ("data_worker_seed_dup", True)
    assert stream in finding.summary
    assert loader.worker_init_fn is initialise


def test_workers_with_seeds_of_their_own_are_healthy(digits: Digits, verdict: Verdict) -> None:
    data = Noisy(digits, np.random.normal)  # its generator is held, and not drawn from
    for initialise in (None, own_numpy):
        loader = DataLoader(
            data, batch_size=32, shuffle=True, num_workers=2, worker_init_fn=initialise
        )
        assert verdict(lambda: train(loader, epochs=2)) == []  # noqa: B023  # called at once


def test_a_seed_that_is_set_anew_in_each_epoch_is_found(digits: Digits, verdict: Verdict) -> None:
    loader = DataLoader(TensorDataset(*digits), batch_size=32, shuffle=True)
    assert verdict(lambda: train(loader, between=lambda: torch.manual_seed(3))) == [
        "warning data_worker_seed_dup"
    ]


def test_a_seed_in_a_fork_of_the_random_stream_is_healthy(digits: Digits, verdict: Verdict) -> None:
    """Samples drawn alike after each epoch; the training's own stream goes on where it was."""
    loader = DataLoader(TensorDataset(*digits), batch_size=32, shuffle=True)

    def look() -> None:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            torch.randn(4)

    assert verdict(lambda: train(loader, between=look)) == []


def test_a_seed_for_each_of_several_trainings_is_healthy(digits: Digits, verdict: Verdict) -> None:
    loader = DataLoader(TensorDataset(*digits), batch_size=32, shuffle=True)

    def trainings() -> None:
        for _ in range(3):
            torch.manual_seed(3)
            train(loader, epochs=2)

    assert verdict(trainings) == []


def test_a_seed_that_is_set_for_each_example_is_found(digits: Digits, verdict: Verdict) -> None:
    def draw() -> float:
        torch.manual_seed(1)
        return float(torch.randn(()))

    loader = DataLoader(Noisy(digits, draw), batch_size=32)
    assert verdict(lambda: train(loader, epochs=1)) == ["warning data_worker_seed_dup"]
