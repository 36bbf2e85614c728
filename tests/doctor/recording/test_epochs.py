"""Tests that an epoch is found, with a loader and without one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leadline.doctor.record import record
from leadline.doctor.recording.epochs import epoch_length, trained_forwards

ROWS = torch.randn(12, 3)


@pytest.mark.parametrize(
    ("batches", "length"),
    [
        (ROWS.split(3), 4),
        ([ROWS], 1),
        (DataLoader(TensorDataset(ROWS), batch_size=4, shuffle=True), 3),
    ],
)
def test_an_epoch_ends_where_the_examples_come_again(
    batches: Iterable[Tensor], length: int
) -> None:
    model = nn.Linear(3, 1)
    with record() as tape:
        for _ in range(3):
            for batch in batches:
                inputs = batch[0] if isinstance(batch, list) else batch
                with torch.no_grad():
                    model(inputs)
                model(inputs).sum().backward()
    assert len(trained_forwards(tape)) == 3 * length
    assert epoch_length(tape, 0) == length
    assert epoch_length(tape, 1) == 0
