"""Tests of the data faults that one batch shows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from leadline.doctor.check import check


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_no_numbers_are_a_finding_not_an_error_of_the_check(
    verdict: Any, mlp: Any, rows: Any, value: float
) -> None:
    inputs, labels = rows
    bad = inputs.clone()
    bad[3, 7] = bad[9, 1] = value
    assert verdict(mlp(), (bad, labels), nn.CrossEntropyLoss()) == ["error input_not_finite"]
    assert verdict(mlp(), rows, nn.CrossEntropyLoss()) == []
    finding = check(mlp(), (bad, labels), nn.CrossEntropyLoss()).findings[0]
    assert finding.evidence[0].measured == 2.0


def test_labels_from_1_on_with_an_output_too_few_are_shifted(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    inputs, labels = rows
    assert verdict(mlp(), (inputs, labels + 1), nn.CrossEntropyLoss()) == ["error labels_shifted"]
    assert verdict(mlp(), (inputs, labels), nn.CrossEntropyLoss()) == []
    finding = check(mlp(), (inputs, labels + 1), nn.CrossEntropyLoss()).findings[0]
    assert "from 1 to 5" in finding.summary
    assert "5 outputs" in finding.summary


def test_labels_from_1_on_with_an_output_to_spare_are_probably_shifted(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    inputs, labels = rows
    assert verdict(mlp(outputs=6), (inputs, labels + 1), nn.CrossEntropyLoss()) == [
        "warning labels_shifted"
    ]
    assert verdict(mlp(), (inputs, labels), nn.CrossEntropyLoss()) == []


def test_a_class_that_a_small_batch_lacks_by_chance_is_no_shift(verdict: Any, mlp: Any) -> None:
    batch = torch.randn(8, 20), torch.tensor([1, 2, 3, 4, 1, 2, 3, 4])
    assert verdict(mlp(), batch, nn.CrossEntropyLoss()) == []


def test_labels_far_beyond_the_outputs_ask_for_more_outputs(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    inputs, labels = rows
    assert verdict(mlp(outputs=3), (inputs, labels), nn.CrossEntropyLoss()) == [
        "error output_units_wrong"
    ]
    finding = check(mlp(outputs=3), (inputs, labels), nn.CrossEntropyLoss()).findings[0]
    assert finding.remedy == "give the model 5 outputs"


def test_labels_of_pixels_that_begin_at_1_are_shifted(verdict: Any) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    inputs, labels = torch.randn(4, 3, 8, 8), torch.arange(256).reshape(4, 8, 8) % 4
    assert verdict(network, (inputs, labels + 1), nn.CrossEntropyLoss()) == ["error labels_shifted"]
    assert verdict(network, (inputs, labels), nn.CrossEntropyLoss()) == []


def test_a_batch_of_one_class_is_in_the_order_of_the_classes(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    inputs, labels = rows
    alike = torch.full_like(labels, 2)
    assert verdict(mlp(), (inputs, alike), nn.CrossEntropyLoss()) == ["warning shuffle_missing"]
    assert verdict(mlp(), rows, nn.CrossEntropyLoss()) == []


def test_a_few_examples_of_one_class_say_nothing(verdict: Any, mlp: Any) -> None:
    batch = torch.randn(4, 20), torch.zeros(4, dtype=torch.long)
    assert verdict(mlp(), batch, nn.CrossEntropyLoss()) == []


def test_a_batch_of_one_binary_label_is_in_the_order_of_the_classes(verdict: Any, mlp: Any) -> None:
    inputs = torch.randn(64, 20)
    loss = nn.BCEWithLogitsLoss()
    ones, mixed = torch.ones(64, 1), (torch.arange(64) % 2).float()[:, None]
    assert verdict(mlp(outputs=1), (inputs, ones), loss) == ["note shuffle_missing"]
    assert verdict(mlp(outputs=1), (inputs, mixed), loss) == []


def test_a_network_that_writes_into_its_input_changes_the_data(
    verdict: Any, mlp: Any, rows: Any
) -> None:
    before = rows[0].clone()
    network = nn.Sequential(nn.ReLU(inplace=True), mlp())
    assert verdict(network, rows, nn.CrossEntropyLoss()) == ["warning data_modified_in_place"]
    network[0].inplace = False
    assert verdict(network, rows, nn.CrossEntropyLoss()) == []
    assert torch.equal(rows[0], before)


def test_one_class_of_a_single_output_is_only_noted(verdict: Any, mlp: Any) -> None:
    inputs = torch.randn(64, 20)
    loss = nn.BCEWithLogitsLoss()
    found = check(mlp(outputs=1), (inputs, torch.ones(64, 1)), loss).findings
    assert [(f.severity, f.cause) for f in found] == [("note", "shuffle_missing")]
    assert "discriminator of a GAN" in found[0].summary
    mixed = (torch.arange(64) % 2).float()[:, None]
    assert check(mlp(outputs=1), (inputs, mixed), loss).findings == ()


def test_tokens_of_which_the_first_never_comes_are_no_shifted_labels(verdict: Any) -> None:
    tokens = torch.randint(1, 11, (32, 33), generator=torch.Generator().manual_seed(0))
    batch = tokens[:, :-1], tokens[:, 1:]

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs.reshape(-1, 11), targets.reshape(-1))

    layers = nn.Embedding(11, 16), nn.Linear(16, 11)
    assert verdict(nn.Sequential(*layers), batch, loss) == []
    flat = nn.Sequential(*layers, nn.Flatten(0, 1))
    assert verdict(flat, (batch[0], batch[1].reshape(-1)), loss) == []
