"""Tests of the feed-forward layer."""

from __future__ import annotations

import torch

from leadline.nn.feed_forward import FeedForward


def test_it_is_two_linear_layers_with_an_activation_between() -> None:
    torch.manual_seed(0)
    layer, values = FeedForward(4, hidden=7, activation="tanh"), torch.randn(2, 3, 4)
    hidden = torch.tanh(values @ layer.fc1.weight.T + layer.fc1.bias)
    torch.testing.assert_close(layer(values), hidden @ layer.fc2.weight.T + layer.fc2.bias)


def test_dropout_is_active_in_training_only() -> None:
    layer, values = FeedForward(4, hidden=64, activation="relu", dropout=0.5), torch.randn(2, 4)
    assert not torch.equal(layer(values), layer(values))
    layer.eval()
    assert torch.equal(layer(values), layer(values))
