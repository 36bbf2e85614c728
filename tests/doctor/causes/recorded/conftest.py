"""Real digits, and what a recorded loop is said to have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leadline.doctor.causes.recorded.signs import signs_of_tape
from leadline.doctor.record import record

Verdict = Callable[[Callable[[], object]], list[str]]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test begins with the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """640 pictures of 8 by 8 pixels, from 0 to 1, and which digit each shows."""
    data = load_digits()
    images = torch.tensor(data.data[:640], dtype=torch.float32) / 16
    return images, torch.tensor(data.target[:640])


@pytest.fixture
def loader(digits: tuple[Tensor, Tensor]) -> DataLoader[tuple[Tensor, ...]]:
    """512 of them, shuffled, 32 at a time: 16 batches."""
    return DataLoader(TensorDataset(*(part[:512] for part in digits)), batch_size=32, shuffle=True)


@pytest.fixture
def held_out(digits: tuple[Tensor, Tensor]) -> DataLoader[tuple[Tensor, ...]]:
    """The other 128, 64 at a time."""
    return DataLoader(TensorDataset(*(part[512:] for part in digits)), batch_size=64)


@pytest.fixture
def network() -> Callable[..., nn.Sequential]:
    """A network with what acts differently in evaluation: batch norm and dropout."""

    def build(outputs: int = 10, *, norm: bool = True) -> nn.Sequential:
        layers = [nn.Linear(64, 32), nn.BatchNorm1d(32) if norm else nn.Identity(), nn.ReLU()]
        return nn.Sequential(*layers, nn.Dropout(0.1), nn.Linear(32, outputs))

    return build


@pytest.fixture
def verdict() -> Verdict:
    """Run a loop and name what its tape shows, notes left out: `["error zero_grad_missing"]`."""

    def ask(train: Callable[[], object]) -> list[str]:
        with record() as tape:
            train()
        found = signs_of_tape(tape)
        return [f"{f.severity} {f.cause}" for f in found if f.severity != "note"]

    return ask


@pytest.fixture
def proven(verdict: Verdict) -> Callable[[Callable[[], object], str], None]:
    """A loop has one fault, proven by its tape; run again with the remedy it has none."""

    def ask(train: Callable[[], object], cause: str) -> None:
        with record() as tape:
            train()
        found = [f for f in signs_of_tape(tape) if f.severity != "note"]
        assert [f.cause for f in found] == [cause]
        change = found[0].change
        assert found[0].proven and change is not None and change.rerun is not None

        def healed() -> None:
            with change.rerun():
                train()

        assert verdict(healed) == []

    return ask
