"""Tests of the backward graph: the names between a loss and an output."""

from __future__ import annotations

import torch
from torch.nn import functional

from leadline.measure.backward_graph import operations_between


def test_the_last_name_is_the_operation_that_computed_the_output() -> None:
    inputs = torch.randn(3, 1, requires_grad=True)
    outputs = inputs.sigmoid().squeeze(-1).clamp(0.1, 0.9)
    loss = functional.binary_cross_entropy_with_logits(outputs, torch.ones(3))
    names = operations_between(loss, outputs)
    assert names[0] == "BinaryCrossEntropyWithLogitsBackward0"
    assert names[-1] == "SigmoidBackward0"


def test_an_output_without_a_part_in_the_loss_has_no_operations() -> None:
    inputs = torch.randn(3, requires_grad=True)
    assert operations_between(inputs.sum(), inputs * 2) == ()
