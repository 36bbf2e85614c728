"""Tests of the backward graph: the names between a loss and an output."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from leadline.core.errors import MeasurementError
from leadline.measure.backward_graph import gradients_through, operations_between


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


def test_gradients_are_none_where_none_arrives() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    gradients = gradients_through(used.square().sum(), [used, unused])
    assert gradients[0] is not None and gradients[0].tolist() == [2.0, 2.0]
    assert gradients[1] is None
    assert gradients_through(torch.tensor(1.0), [used]) == [None]


def test_a_reentrant_checkpoint_is_named_and_another_error_stays_what_it_is() -> None:
    layer, inputs = nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    loss = checkpoint(layer, inputs, use_reentrant=True).sum()
    with pytest.raises(MeasurementError, match="use_reentrant=False"):
        gradients_through(loss, list(layer.parameters()))
    with pytest.raises(RuntimeError, match="scalar"):
        gradients_through(torch.ones(2, requires_grad=True) * 2, [inputs])
