"""Tests that epochs, batches and seeds are heard."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leadline.doctor.record import record


def test_epochs_begin_and_end_and_calls_know_their_batch() -> None:
    loader = DataLoader(TensorDataset(torch.ones(6, 2)), batch_size=2)
    model = nn.Linear(2, 1)
    with record() as tape:
        for _ in range(2):
            for (inputs,) in loader:
                model(inputs)
        model(torch.ones(5, 2))
    assert [event["batches"] for event in tape.of("epoch_ended")] == [3, 3]
    assert [event["drawn"] for event in tape.of("forward")] == [1, 2, 3, 4, 5, 6, -1]
    assert [event["loader"] for event in tape.of("forward")] == [0] * 6 + [-1]


def test_seeds_are_heard_and_set() -> None:
    with record() as tape:
        torch.manual_seed(3)
        np.random.seed(4)
    assert [event["seed"] for event in tape.of("seeded")] == [3, 4]
    assert torch.initial_seed() == 3


def test_what_a_data_set_computes_is_not_the_loops() -> None:
    class Halving(TensorDataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            return (nn.Linear(2, 2)(super().__getitem__(index)[0]).detach(),)

    with record() as tape:
        next(iter(DataLoader(Halving(torch.ones(4, 2)))))
    assert [event.kind for event in tape.events] == ["epoch_begun"]
