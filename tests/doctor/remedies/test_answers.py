"""Tests of remedies for what losses and measures make of answers."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.doctor.problem import Problem
from leadline.doctor.remedies.answers import (
    behind_the_end,
    every_class,
    labels_to_zero_and_one,
    read_as_probabilities,
    read_from_the_middle,
    without_padding,
)

THREE = Problem(kind="classes", classes=3)


def test_a_loss_of_torch_keeps_its_weights_and_counts_the_class(
    make_setup: Any, alike: Any
) -> None:
    weight = torch.tensor([1.0, 2.0, 3.0])
    sick = make_setup(loss=nn.CrossEntropyLoss(weight=weight, ignore_index=1, label_smoothing=0.1))
    remedy = every_class(sick.loss, THREE, ignored=1, probabilities=False)
    by_hand = make_setup(
        batches=sick.batches, loss=nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1)
    )
    alike(remedy(sick), by_hand)


def test_a_class_of_weight_zero_is_counted_by_the_usual_loss(make_setup: Any, alike: Any) -> None:
    sick = make_setup(loss=nn.CrossEntropyLoss(torch.tensor([1.0, 0.0, 1.0]), ignore_index=1))
    remedy = every_class(sick.loss, THREE, ignored=1, probabilities=False)
    alike(remedy(sick), make_setup(batches=sick.batches))


def test_a_log_likelihood_stays_one(make_setup: Any) -> None:
    sick = make_setup(loss=nn.NLLLoss(ignore_index=1))
    healed = every_class(sick.loss, THREE, ignored=1, probabilities=False)(sick)
    assert type(healed.loss) is nn.NLLLoss and healed.loss.ignore_index == -100


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (-1.0, 1.0)])
def test_two_labels_become_zero_and_one(make_setup: Any, low: float, high: float) -> None:
    healed = labels_to_zero_and_one(low, high)(
        make_setup(loss=functional.binary_cross_entropy_with_logits)
    )
    outputs, yes = torch.randn(6), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    expected = functional.binary_cross_entropy_with_logits(outputs, yes)
    torch.testing.assert_close(healed.loss(outputs, low + (high - low) * yes), expected)


@pytest.mark.parametrize("axis", [1, 2])
def test_padded_places_are_left_out_wherever_the_classes_are(make_setup: Any, axis: int) -> None:
    targets = torch.tensor([[2, 1, 0, 0], [1, 2, 1, 0]])
    rows = torch.randn(2, 4, 3)

    def loss(outputs: Tensor, wanted: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.movedim(axis, 1), wanted)

    healed = without_padding(torch.tensor(0), axis=axis)(make_setup(loss=loss))
    known = targets != 0
    torch.testing.assert_close(
        healed.loss(rows.movedim(2, axis), targets),
        functional.cross_entropy(rows[known], targets[known]),
    )


def test_padded_rows_of_numbers_are_left_out(make_setup: Any) -> None:
    targets = torch.randn(2, 4, 3)
    targets[0, 2:] = -1.0
    outputs = torch.randn(2, 4, 3)
    healed = without_padding(torch.full((3,), -1.0), axis=None)(
        make_setup(loss=functional.mse_loss)
    )
    known = torch.tensor([[True, True, False, False], [True] * 4])
    torch.testing.assert_close(
        healed.loss(outputs, targets), functional.mse_loss(outputs[known], targets[known])
    )


def test_a_batch_of_nothing_but_padding_goes_to_the_loss_as_it_is(make_setup: Any) -> None:
    healed = without_padding(torch.tensor(0), axis=2)(
        make_setup(loss=lambda outputs, targets: outputs.sum() * 0 + len(targets))
    )
    assert float(healed.loss(torch.randn(5, 2, 3), torch.zeros(5, 2, dtype=torch.long))) == 5


def test_filler_within_a_sequence_is_not_behind_its_end() -> None:
    rows = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [3.0, 0.0], [0.0, 0.0]]])
    assert behind_the_end(rows, torch.zeros(2)).tolist() == [[False, False, False, True]]


class Measure:
    """A task that says how many outputs are above a border."""

    main_metric, higher_is_better, head_size = "above", True, 1

    def __init__(self, border: float) -> None:
        self.border = border

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs, targets)

    def check_targets(self, targets: Tensor) -> None:
        assert targets.ndim == 1

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Any:
        return SimpleNamespace(metrics=lambda: {"above": int((outputs > self.border).sum())})


def test_a_measure_is_given_probabilities_for_logits(make_setup: Any) -> None:
    task = read_as_probabilities()(make_setup(task=Measure(0.5))).task
    assert task.evaluate(torch.tensor([-0.2, 0.2]), torch.zeros(2)).metrics() == {"above": 1}
    assert task.main_metric == "above"


def test_a_measure_with_its_border_at_zero_is_given_centred_probabilities(
    make_setup: Any,
) -> None:
    task = copy.deepcopy(read_from_the_middle()(make_setup(task=Measure(0.0))).task)
    assert task.evaluate(torch.tensor([0.4, 0.6]), torch.zeros(2)).metrics() == {"above": 1}
