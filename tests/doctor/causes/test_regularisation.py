"""Tests of the regularisation faults: dropout that takes too much, or draws in evaluation mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW

from leadline.doctor.check import check


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
    stronger = AdamW(network.parameters(), lr=1e-3, weight_decay=30.0)
    assert verdict(network, rows, loss, optimizer=stronger) == ["warning reg_too_strong"]


def test_an_attention_that_drops_in_evaluation_mode_is_misused(
    verdict: Any, text: Any, language_loss: Any
) -> None:
    class Attention(nn.Module):
        def __init__(self, *, knows: bool) -> None:
            super().__init__()
            self.tokens, self.head, self.knows = nn.Embedding(50, 16), nn.Linear(16, 50), knows

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.tokens(tokens)
            share = 0.3 if self.training or not self.knows else 0.0
            x = x + functional.scaled_dot_product_attention(
                x, x, x, dropout_p=share, is_causal=True
            )
            return self.head(x)

    assert verdict(Attention(knows=False), text, language_loss) == ["warning dropout_misuse"]
    assert verdict(Attention(knows=True), text, language_loss) == []


def test_a_network_that_draws_samples_by_design_gets_a_note(verdict: Any, mlp: Any) -> None:
    class Variational(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp(outputs=8), mlp(4, 20)

        def forward(self, x: Tensor) -> Tensor:
            mean, log_variance = self.encoder(x).chunk(2, dim=1)
            return self.decoder(mean + torch.randn_like(mean) * (log_variance / 2).exp())

    inputs = torch.randn(64, 20)
    assert verdict(Variational(), (inputs, inputs), nn.MSELoss()) == ["note dropout_misuse"]


def test_the_layer_that_drops_is_named(rows: Any) -> None:
    class Drops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.dropout(x)

    network = nn.Sequential(nn.Linear(20, 16), nn.Dropout(0.1), Drops(), nn.Linear(16, 5))
    finding = check(network, rows, nn.CrossEntropyLoss()).findings[0]
    assert finding.layers == ("2",)
