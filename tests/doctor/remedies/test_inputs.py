"""Tests of the remedies of inputs and targets: inside the model, so that it takes what it took."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from leadline.core.seeds import seed_everything
from leadline.doctor.remedies.inputs import (
    standardised_inputs,
    standardised_targets,
    statistics_of,
    unwritten_inputs,
)


def test_a_table_is_scaled_per_column_as_scikit_learn_does() -> None:
    table = torch.randn(50, 4) * torch.tensor([1.0, 100.0, 1e-3, 7.0]) + 5
    expected = torch.from_numpy(StandardScaler().fit_transform(table.double().numpy()))
    torch.testing.assert_close(statistics_of(table)(table), expected.float(), rtol=1e-3, atol=1e-3)


def test_images_are_scaled_per_channel() -> None:
    images = torch.rand(20, 3, 8, 8) * 255
    scaled = statistics_of(images)(images)
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        scaled.var((0, 2, 3), unbiased=False), torch.ones(3), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("shape", [(40,), (40, 300), (40, 7, 5)])
def test_other_inputs_are_scaled_as_a_whole(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape) * 30 + 100
    scaled = statistics_of(values)(values)
    assert scaled.shape == shape
    assert scaled.mean().item() == pytest.approx(0, abs=1e-3)
    assert scaled.std(unbiased=False).item() == pytest.approx(1, rel=1e-3)


def test_a_column_of_one_value_is_only_shifted() -> None:
    table = torch.stack([torch.randn(30), torch.full((30,), 7.0)], dim=1)
    assert torch.equal(statistics_of(table)(table)[:, 1], torch.zeros(30))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_spoils_no_other(bad: float) -> None:
    table = torch.randn(30, 2)
    spoiled = torch.cat([table, torch.tensor([[bad, 0.5]])])
    scaled = statistics_of(spoiled)(table)
    torch.testing.assert_close(scaled[:, 0], statistics_of(table)(table)[:, 0])


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_inputs_keep_their_precision_and_whole_numbers_become_floating(kind: Any) -> None:
    inputs = torch.arange(200).reshape(50, 4).to(kind)
    wanted = kind if kind.is_floating_point else torch.float32
    assert statistics_of(inputs)(inputs).dtype == wanted


def test_the_model_takes_raw_inputs_and_answers_as_for_scaled_ones(
    make_setup: Any, alike: Any
) -> None:
    data = [(torch.randn(8, 4) * 50 + 200, torch.randint(0, 3, (8,))) for _ in range(4)]
    sick = make_setup(batches=data)
    every = torch.cat([x for x, _ in data])
    mean, std = every.mean(0), every.std(0, unbiased=False)
    by_hand = replace(sick, batches=[((x - mean) / std, y) for x, y in data])
    alike(standardised_inputs(every)(sick), by_hand)


# ------------------------------------------------------------------------------------- the targets


def test_the_network_learns_scaled_targets_and_answers_in_the_old_unit(make_setup: Any) -> None:
    targets = torch.randn(32, 1) * 500 + 10_000
    inputs = torch.randn(32, 4)
    sick = make_setup(model=lambda: nn.Linear(4, 1), batches=[(inputs, targets)], loss=nn.MSELoss())
    mended = standardised_targets(targets)(sick)
    mean, std = targets.mean(), targets.std(unbiased=False)

    seed_everything(0)
    model = mended.model()
    seed_everything(0)
    by_hand = sick.model()

    value = mended.loss(model(inputs), targets)
    expected = nn.functional.mse_loss(by_hand(inputs), (targets - mean) / std)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    value.backward()
    expected.backward()
    for mine, its in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model(inputs), by_hand(inputs) * std + mean)


@pytest.mark.parametrize("targets", [torch.tensor([[5.0]]), torch.full((9, 1), 5.0)])
def test_targets_of_one_value_are_only_shifted(make_setup: Any, targets: Tensor) -> None:
    mended = standardised_targets(targets)(make_setup(model=nn.Identity, loss=nn.MSELoss()))
    assert mended.model()(torch.zeros(1)).item() == 5.0
    assert mended.loss(torch.tensor([6.0]), torch.tensor([5.0])).item() == 1.0


def test_targets_that_are_not_finite_spoil_no_other(make_setup: Any) -> None:
    targets = torch.tensor([[1.0], [3.0], [torch.nan], [torch.inf]])
    model = standardised_targets(targets)(make_setup(model=nn.Identity)).model()
    assert model(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [1.0, 2.0, 3.0]


def test_the_lines_to_change_name_the_numbers() -> None:
    remedy = standardised_targets(torch.tensor([[1.0], [3.0]]))
    assert remedy.lines == (
        "+ targets = (targets - 2) / 1",
        "+ predictions = 1 * outputs + 2",
    )


# -------------------------------------------------------------------------------- written-to inputs


def test_the_model_writes_into_a_copy(make_setup: Any) -> None:
    class Writing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    model = unwritten_inputs()(make_setup(model=Writing)).model()
    inputs = torch.ones(3)
    assert model(inputs).tolist() == [2.0, 2.0, 2.0]
    assert inputs.tolist() == [1.0, 1.0, 1.0]
