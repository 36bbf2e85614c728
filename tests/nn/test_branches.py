"""Tests of branches: order, shared beginnings, gradients."""

from __future__ import annotations

import torch
from torch import nn

from leadline.nn.branches import Branches


class Counted(nn.Module):
    """Adds a number, and counts how often it was asked."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number, self.calls = number, 0

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return maps + self.number


def test_the_ends_of_the_paths_are_side_by_side_in_their_order() -> None:
    layers = {"first": Counted(1), "second": Counted(10), "third": Counted(100)}
    branches = Branches(layers, paths=(("third",), ("first", "second"), ("first",)))
    found = branches(torch.zeros(1, 1, 1, 1)).flatten()
    assert found.tolist() == [100.0, 11.0, 1.0]


def test_a_shared_beginning_is_computed_once() -> None:
    layers = {"first": Counted(1), "second": Counted(10), "third": Counted(100)}
    branches = Branches(layers, paths=(("first", "second"), ("first", "third")))
    branches(torch.zeros(2, 3, 4, 4))
    assert [layer.calls for layer in layers.values()] == [1, 1, 1]


def test_layers_keep_their_names() -> None:
    branches = Branches({"a": nn.Conv2d(1, 1, 1)}, paths=(("a",),))
    assert list(branches.state_dict()) == ["a.weight", "a.bias"]
