"""Tests of Batch: every form a user has it in, and errors that name what is wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.batch import main_output, read_batch, trainable


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.linear(x)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return SimpleNamespace(loss=loss, logits=logits)


def test_a_pair_is_inputs_and_targets() -> None:
    batch = read_batch([torch.ones(4, 2), torch.zeros(4)])
    assert batch.args[0].shape == (4, 2)
    assert batch.targets.shape == (4,)
    assert batch.examples == 4


def test_of_three_values_the_last_are_the_targets() -> None:
    batch = read_batch((torch.ones(4, 2), torch.ones(4, 3), torch.zeros(4)))
    assert [tuple(entry.shape) for entry in batch.args] == [(4, 2), (4, 3)]
    assert batch.targets.shape == (4,)


def test_a_mapping_becomes_keywords_and_its_labels_the_targets() -> None:
    batch = read_batch({"x": torch.ones(4, 2), "labels": torch.zeros(4, dtype=torch.long)})
    loss = batch.loss(Keywords())
    assert loss.ndim == 0
    assert batch.targets.dtype == torch.long


def test_the_first_examples_keep_what_all_examples_share() -> None:
    shared = torch.ones(7)
    batch = read_batch((torch.ones(4, 2), shared, torch.zeros(4))).first(2)
    assert batch.args[0].shape == (2, 2)
    assert batch.args[1].shape == (7,)
    assert batch.targets.shape == (2,)


def test_a_part_of_a_batch_has_the_examples_in_between() -> None:
    shared = torch.ones(7)
    batch = read_batch((torch.arange(4.0), shared, torch.arange(4))).part(1, 3)
    assert batch.args[0].tolist() == [1, 2]
    assert batch.args[1].shape == (7,)
    assert batch.targets.tolist() == [1, 2]


def test_changing_the_type_leaves_class_numbers_alone() -> None:
    batch = read_batch((torch.ones(4, 2), torch.zeros(4, dtype=torch.long))).to(torch.float64)
    assert batch.args[0].dtype == torch.float64
    assert batch.targets.dtype == torch.long


def test_other_inputs_take_the_places_of_the_tensors_in_order() -> None:
    batch = read_batch((({"a": torch.ones(2)}, torch.ones(3)), torch.zeros(2)))
    changed = batch.with_inputs(torch.zeros(2), torch.zeros(3))
    assert [tensor.sum().item() for tensor in changed.inputs] == [0, 0]
    assert [tensor.sum().item() for tensor in batch.inputs] == [2, 3]


def test_the_logits_are_found_by_name_or_as_the_first_floating_tensor() -> None:
    assert main_output(SimpleNamespace(logits=torch.ones(2))).shape == (2,)
    assert main_output((torch.ones(3, dtype=torch.long), torch.ones(2))).shape == (2,)
    with pytest.raises(MeasurementError, match="return the logits"):
        main_output([torch.ones(3, dtype=torch.long)])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((torch.ones(0, 2), torch.ones(0)), r"at least one example[\s\S]*\(0, 2\)"),
        (torch.tensor([1.0, float("nan")]), "finite inputs"),
        (None, "next\\(iter\\(loader\\)\\)"),
        ((), "a mapping of keywords"),
    ],
)
def test_a_batch_that_cannot_be_used_is_described(value: Any, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        read_batch(value)


def test_a_failing_forward_names_the_layer_and_what_it_was_given() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(4, 1))
    with pytest.raises(MeasurementError, match=r"in Linear '2', given[^:]*\(5, 3\)"):
        read_batch(torch.ones(5, 2)).forward(model)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (None, "such as torch.nn.functional.cross_entropy"),
        (lambda outputs, targets: outputs, "leave out reduction='none'"),
        (functional.cross_entropy, r"outputs a float32 tensor of shape \(4, 1\)"),
    ],
)
def test_a_loss_that_is_no_loss_is_described(loss: Any, message: str) -> None:
    batch = read_batch((torch.ones(4, 2), torch.ones(4, 5, 6)))
    with pytest.raises(MeasurementError, match=message):
        batch.loss(nn.Linear(2, 1), loss) if loss is not None else batch.loss(nn.Linear(2, 1))


def test_parameters_that_cannot_learn_are_an_error() -> None:
    with pytest.raises(MeasurementError, match="has no parameters"):
        trainable(nn.ReLU())
    with pytest.raises(MeasurementError, match="2 parameters are all frozen"):
        trainable(nn.Linear(2, 2).requires_grad_(False))
    assert list(trainable(nn.Linear(2, 2))) == ["weight", "bias"]
