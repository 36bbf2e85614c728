"""Tests of the regularisation faults: dropout that takes too much, or draws in evaluation mode."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW


def dropping(share: float) -> nn.Sequential:
    """A dense net with dropout in the middle."""
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(share), nn.Linear(64, 5))


def test_dropout_that_leaves_a_tenth_is_too_high(verdict: Any, rows: Any) -> None:
    assert verdict(dropping(0.9), rows, nn.CrossEntropyLoss()) == ["warning dropout_too_high"]
    assert verdict(dropping(0.5), rows, nn.CrossEntropyLoss()) == []


def test_dropout_that_leaves_nothing_is_an_error(verdict: Any, rows: Any) -> None:
    assert verdict(dropping(1.0), rows, nn.CrossEntropyLoss())[0] == "error dropout_too_high"


def test_a_functional_dropout_that_does_not_know_the_mode_is_misused(
    verdict: Any, rows: Any
) -> None:
    class Net(nn.Module):
        def __init__(self, *, knows: bool) -> None:
            super().__init__()
            self.first, self.last, self.knows = nn.Linear(20, 64), nn.Linear(64, 5), knows

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.first(x))
            return self.last(functional.dropout(x, training=self.training or not self.knows))

    assert verdict(Net(knows=False), rows, nn.CrossEntropyLoss()) == ["warning dropout_misuse"]
    assert verdict(Net(knows=True), rows, nn.CrossEntropyLoss()) == []


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_decay_in_the_gradient_that_pulls_harder_than_the_loss_is_too_strong(
    verdict: Any, mlp: Any, rows: Any, kind: Any
) -> None:
    network = mlp()
    strong = kind(network.parameters(), lr=1e-3, weight_decay=0.5)
    usual = kind(network.parameters(), lr=1e-3, weight_decay=5e-4)
    apart = AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    loss = nn.CrossEntropyLoss()
    assert verdict(network, rows, loss, optimizer=strong) == ["warning reg_too_strong"]
    assert verdict(network, rows, loss, optimizer=usual) == []
    assert verdict(network, rows, loss, optimizer=apart) == []
