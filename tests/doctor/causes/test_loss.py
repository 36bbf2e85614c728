"""Tests of the loss faults: shapes that broadcast, sums, the wrong axis, losses that fail."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.doctor.causes.loss import class_axis
from leadline.doctor.check import check

BROADCAST = "ignore:Using a target size:UserWarning"


@pytest.mark.filterwarnings(BROADCAST)
@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss()])
def test_a_column_of_outputs_against_a_row_of_targets_broadcasts(
    verdict: Any, mlp: Any, loss: nn.Module
) -> None:
    inputs = torch.randn(64, 20)
    targets = inputs.sum(dim=1)
    assert verdict(mlp(outputs=1), (inputs, targets), loss) == ["error target_broadcast_shape"]
    assert verdict(mlp(outputs=1), (inputs, targets[:, None]), loss) == []


@pytest.mark.filterwarnings(BROADCAST)
def test_a_row_of_outputs_against_a_column_of_targets_broadcasts_too(
    verdict: Any, mlp: Any
) -> None:
    inputs = torch.randn(64, 20)
    targets = inputs.sum(dim=1, keepdim=True)
    network = nn.Sequential(mlp(outputs=1), nn.Flatten(0))
    assert verdict(network, (inputs, targets), nn.MSELoss()) == ["error target_broadcast_shape"]
    assert verdict(network, (inputs, targets[:, 0]), nn.MSELoss()) == []


def test_a_loss_of_ones_own_that_broadcasts_silently_is_found(verdict: Any, mlp: Any) -> None:
    def squared(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs - targets) ** 2).mean()

    def flattened(outputs: Tensor, targets: Tensor) -> Tensor:
        return squared(outputs.flatten(), targets.flatten())

    inputs = torch.randn(64, 20)
    batch = inputs, inputs.sum(dim=1)
    assert verdict(mlp(outputs=1), batch, squared) == ["error target_broadcast_shape"]
    assert verdict(mlp(outputs=1), batch, flattened) == [], "a loss that takes care of it is right"


@pytest.mark.filterwarnings(BROADCAST)
@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss()])
def test_a_column_of_outputs_against_a_row_of_whole_numbers_broadcasts(
    verdict: Any, mlp: Any, rows: Any, loss: nn.Module
) -> None:
    inputs, labels = rows
    network = mlp(outputs=1)
    assert verdict(network, (inputs, labels), loss) == ["error target_broadcast_shape"]
    assert verdict(network, (inputs, labels[:, None]), loss) == []


@pytest.mark.filterwarnings(BROADCAST)
@pytest.mark.parametrize(("outputs", "targets"), [(1, 4), (4, 1)])
def test_one_number_against_a_row_of_several_is_a_warning(
    verdict: Any, mlp: Any, outputs: int, targets: int
) -> None:
    inputs = torch.randn(64, 20)
    wanted = inputs[:, :targets]
    found = verdict(mlp(outputs=outputs), (inputs, wanted), nn.MSELoss())
    assert found == ["warning target_broadcast_shape"]
    assert verdict(mlp(outputs=targets), (inputs, wanted), nn.MSELoss()) == []


def test_the_two_losses_of_a_broadcast_are_those_of_the_formula(mlp: Any) -> None:
    network, inputs = mlp(outputs=1), torch.randn(16, 20)
    targets = torch.randn(16)
    loss = lambda o, t: ((o - t) ** 2).mean()  # noqa: E731  (a user's own, inline)
    finding = check(network, (inputs, targets), loss).findings[0]
    with torch.no_grad():
        outputs = network(inputs)
    assert finding.evidence[0].measured == pytest.approx(float(loss(outputs, targets)), rel=1e-5)
    right = functional.mse_loss(outputs[:, 0], targets)
    assert finding.evidence[0].expected == f"{right:.4g}, that with equal shapes"
    assert "(16, 16)" in finding.summary


def test_a_loss_that_adds_the_examples_up_is_a_warning(verdict: Any, mlp: Any, rows: Any) -> None:
    summed = verdict(mlp(), rows, nn.CrossEntropyLoss(reduction="sum"))
    assert summed == ["warning loss_reduction_wrong"]
    assert verdict(mlp(), rows, nn.CrossEntropyLoss()) == []
    inputs = torch.randn(64, 20)
    batch = inputs, inputs[:, :1]
    assert verdict(mlp(outputs=1), batch, nn.MSELoss(reduction="sum")) == [
        "warning loss_reduction_wrong"
    ]
    assert verdict(mlp(outputs=1), batch, nn.MSELoss()) == []


def test_a_softmax_along_the_batch_is_the_wrong_axis(verdict: Any, mlp: Any, rows: Any) -> None:
    network = mlp()
    wrong = nn.Sequential(network, nn.Softmax(dim=0))
    found = verdict(wrong, rows, nn.CrossEntropyLoss())
    assert found[0] == "error loss_axis_wrong"
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []


def test_a_loss_whose_softmax_runs_along_the_batch_is_the_wrong_axis(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    def loss(outputs: Tensor, targets: Tensor, *, dim: int) -> Tensor:
        return functional.nll_loss(functional.log_softmax(outputs, dim=dim), targets)

    found = verdict(mlp(), rows, partial(loss, dim=0))
    assert found[0] == "error loss_axis_wrong"
    for sound in (partial(loss, dim=1), functional.multi_margin_loss):
        assert "error loss_axis_wrong" not in verdict(mlp(), rows, sound)


def test_a_binary_loss_of_probabilities_that_are_none_fails_and_is_explained(
    verdict: Any, mlp: Any
) -> None:
    network = mlp(outputs=1)
    batch = torch.randn(64, 20), (torch.arange(64) % 2).float()[:, None]
    assert verdict(network, batch, nn.BCELoss()) == ["error output_activation_wrong"]
    assert verdict(nn.Sequential(network, nn.Sigmoid()), batch, nn.BCELoss()) == []


def test_a_binary_loss_that_refuses_other_shapes_is_explained(verdict: Any, mlp: Any) -> None:
    batch = torch.randn(64, 20), (torch.arange(64) % 2).float()
    assert verdict(mlp(outputs=1), batch, nn.BCEWithLogitsLoss()) == [
        "error target_broadcast_shape"
    ]
    mended = batch[0], batch[1][:, None]
    assert verdict(mlp(outputs=1), mended, nn.BCEWithLogitsLoss()) == []


def test_a_failing_loss_that_the_shapes_do_not_explain_is_an_error_of_the_check(
    mlp: Any, rows: Any
) -> None:
    def broken(outputs: Tensor, targets: Tensor) -> Tensor:
        raise ZeroDivisionError("my own mistake")

    with pytest.raises(MeasurementError, match="my own mistake") as caught:
        check(mlp(), rows, broken)
    assert caught.value.expected == "a loss that takes (outputs, targets)"


def test_float_labels_in_a_cross_entropy_keep_what_torch_says_of_them(mlp: Any, rows: Any) -> None:
    inputs, labels = rows
    with pytest.raises(MeasurementError, match="Long"):
        check(mlp(), (inputs, labels.float()), nn.CrossEntropyLoss())


def test_class_numbers_with_an_axis_of_one_too_many_are_explained(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    inputs, labels = rows
    batch = inputs, labels[:, None]
    assert verdict(mlp(), batch, nn.CrossEntropyLoss()) == ["error target_broadcast_shape"]
    finding = check(mlp(), batch, nn.CrossEntropyLoss()).findings[0]
    assert finding.remedy == "drop the axis of one: targets.squeeze(1)"
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    masks = torch.randn(4, 3, 8, 8), torch.randint(0, 4, (4, 1, 8, 8))
    assert verdict(network, masks, nn.CrossEntropyLoss()) == ["error target_broadcast_shape"]
    mended = masks[0], masks[1].squeeze(1)
    assert verdict(network, mended, nn.CrossEntropyLoss()) == []


def test_whole_numbers_in_the_binary_loss_of_logits_are_no_classes(mlp: Any) -> None:
    batch = torch.randn(64, 20), torch.arange(64) % 2
    finding = check(mlp(outputs=1), batch, nn.BCEWithLogitsLoss()).findings[0]
    assert finding.cause == "target_broadcast_shape"
    assert finding.evidence[0].expected == "that of the outputs, (64, 1)"


def test_pixels_marked_255_are_to_be_ignored_not_learned() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    labels = torch.randint(0, 4, (4, 8, 8))
    labels[:, 0] = 255
    batch = torch.randn(4, 3, 8, 8), labels
    finding = check(network, batch, nn.CrossEntropyLoss()).findings[0]
    assert finding.cause == "output_units_wrong"
    assert finding.remedy.startswith("pass ignore_index=255 to the loss")
    assert check(network, batch, nn.CrossEntropyLoss(ignore_index=255)).findings == ()


def test_labels_from_minus_1_on_are_shifted(mlp: Any, rows: Any) -> None:
    inputs, labels = rows
    finding = check(mlp(), (inputs, labels - 1), nn.CrossEntropyLoss()).findings[0]
    assert (finding.cause, finding.remedy) == ("labels_shifted", "add 1 to the labels")
    ignored = labels.clone()
    ignored[:20] = -100
    assert check(mlp(), (inputs, ignored), nn.CrossEntropyLoss()).findings == ()


@pytest.mark.parametrize(
    ("outputs", "targets", "axis"),
    [((8, 5), (8,), 1), ((8, 4, 6, 6), (8, 6, 6), 1), ((8, 7, 50), (8, 7), -1), ((5,), (), 0)],
)
def test_the_class_axis_is_told_by_the_targets(
    outputs: tuple[int, ...], targets: tuple[int, ...], axis: int
) -> None:
    assert class_axis(torch.zeros(outputs), torch.zeros(targets)) == axis


def test_padding_that_the_loss_counts_is_found(verdict: Any) -> None:
    tokens = torch.randint(1, 50, (8, 21))
    tokens[:, 8:] = 0
    batch = tokens[:, :-1], tokens[:, 1:]

    def counting(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.transpose(1, 2), targets)

    def ignoring(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.transpose(1, 2), targets, ignore_index=0)

    network = nn.Sequential(nn.Embedding(50, 32, padding_idx=0), nn.Linear(32, 50))
    assert verdict(network, batch, counting) == ["warning padding_in_loss"]
    assert verdict(network, batch, ignoring) == []
    full = torch.randint(1, 50, (8, 21))
    assert verdict(network, (full[:, :-1], full[:, 1:]), counting) == []


def test_forgotten_targets_are_asked_for(mlp: Any, rows: Any) -> None:
    with pytest.raises(
        MeasurementError, match=r"(?s)batch has no targets.*pass \(inputs, targets\)"
    ):
        check(mlp(), rows[0], nn.CrossEntropyLoss())
    assert check(mlp(outputs=20), rows[0], nn.MSELoss()).loss > 0, "an autoencoder's own input"
