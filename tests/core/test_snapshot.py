"""Tests of the snapshot: what a forward pass changes behind one's back is put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from leadline.core.snapshot import Snapshot
from leadline.core.taps import Taps


class Remembering(nn.Module):
    """Keeps a state, a counter and a list in plain attributes, and makes a cache when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2, 3)
        self.state = torch.zeros(4, 3)
        self.count = 0
        self.history: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.state = self.cell(x, self.state)
        self.count += 1
        self.history.append(self.count)
        self.cache = x
        return self.state


def test_plain_attributes_are_put_back_and_new_ones_go() -> None:
    model = Remembering()
    state, history = model.state, model.history
    found = Snapshot(model)
    model(torch.ones(4, 2))
    found.put_back()
    assert model.state is state and model.count == 0
    assert model.history is history and history == []
    assert not hasattr(model, "cache")


def test_rows_that_a_lookup_shortens_are_long_again() -> None:
    model = nn.Sequential(nn.Embedding(10, 4, max_norm=0.5), nn.Flatten())
    before = model[0].weight.detach().clone()  # type: ignore[union-attr,operator]
    with Taps(model):
        model(torch.arange(10)[None])
        assert not torch.equal(before, model[0].weight)  # type: ignore[arg-type]
    assert torch.equal(before, model[0].weight)  # type: ignore[arg-type]


def test_calls_that_checkpointing_repeats_are_told_of_once() -> None:
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

        def forward(self, x: Tensor) -> Any:
            return checkpoint(self.inside, x, use_reentrant=False)

    seen: list[str] = []
    with Taps(model := Saving()) as taps:
        taps.on_output(lambda call, inputs, output: seen.append(call.name))
        taps.on_operation(lambda operation, inputs, output: seen.append(operation.function))
        model(torch.ones(1, 2)).sum().backward()
    assert seen.count("inside.0") == 1
    assert seen.count("relu") == 1
