"""Tests that a class that a loss leaves out is found, and padding is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from leadline.doctor.causes.recorded.loss import signs
from leadline.doctor.record import record

Loader = DataLoader[Any]
Proven = Callable[[Callable[[], object], str], None]


def train(loader: Loader, loss: nn.Module) -> None:
    model = nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()


def test_a_class_that_is_ignored_is_proven(loader: Loader, proven: Proven) -> None:
    proven(
        lambda: train(loader, nn.CrossEntropyLoss(ignore_index=0)),
        "ignore_index_hits_class",
    )


def test_the_usual_loss_and_a_number_that_is_no_class_are_healthy(loader: Loader) -> None:
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(ignore_index=255)):
        with record() as tape:
            train(loader, loss)
        assert list(signs(tape)) == []


def test_padding_among_tokens_is_rightly_ignored() -> None:
    with record() as tape:
        model = nn.Sequential(nn.Embedding(20, 8, padding_idx=0), nn.Linear(8, 20))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(4):
            tokens = torch.randint(0, 20, (8, 12))
            optimizer.zero_grad()
            outputs = model(tokens[:, :-1]).reshape(-1, 20)
            functional.cross_entropy(outputs, tokens[:, 1:].reshape(-1), ignore_index=0).backward()
            optimizer.step()
    assert list(signs(tape)) == []
