"""Tests that a broken tie between an embedding and a head is seen at first sight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leadline.doctor.causes.recorded.architecture import signs
from leadline.doctor.record import record


@pytest.mark.parametrize("copied", [True, False])
def test_weights_that_begin_equal_and_are_two_tensors_are_named(copied: bool) -> None:
    model = nn.Sequential(nn.Embedding(12, 8), nn.Linear(8, 12, bias=False))
    table = model[0].weight
    assert isinstance(table, nn.Parameter)
    model[1].weight = nn.Parameter(table.detach().clone()) if copied else table
    with record() as tape:
        model(torch.zeros(2, 3, dtype=torch.long))
    found = [(f.cause, f.layers) for f in signs(tape)]
    assert found == ([("weight_tying_broken", ("0", "1"))] if copied else [])


def test_layers_that_are_copies_of_each_other_are_no_broken_tie() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    with record() as tape:
        model(torch.zeros(2, 3, 8))
    assert list(signs(tape)) == []
