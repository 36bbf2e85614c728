"""Tests of the axis of units: channels first after convolutions, last after linear layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leadline.core.taps import Taps
from leadline.measure.layers import on_layer
from leadline.measure.units.unit_axis import UnitAxis, sample_entries


def axes(model: nn.Module, inputs: Tensor) -> list[int]:
    found: list[int] = []
    axis = UnitAxis()
    with Taps(model) as taps, torch.no_grad():
        on_layer(taps, lambda layer, given, output: found.append(axis.of(layer, given, output)))
        model(inputs)
    return found


class ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x.permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.ReLU()), (2, 3, 4, 4), [1, 1, 1]),
        (nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU()), (3, 4, 4), [0, 0]),
        (nn.Sequential(nn.Conv1d(3, 5, 1), nn.ReLU()), (2, 3, 5), [1, 1]),
        (nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.GELU()), (2, 7, 3), [2, 2, 2]),
        (nn.Sequential(nn.Linear(5, 5), nn.ReLU()), (2, 5, 5, 5), [3, 3]),
        (nn.Sequential(nn.Linear(3, 5), nn.ReLU()), (3,), [0, 0]),
        (nn.Sequential(nn.Conv2d(3, 5, 1), nn.MaxPool2d(2), nn.ReLU()), (2, 3, 4, 4), [1, 1, 1]),
        (nn.ReLU(), (2, 3, 4, 4), [1]),
        (nn.ReLU(), (2, 3), [1]),
    ],
)
def test_the_axis_is_that_of_the_layer_which_made_the_units(
    model: nn.Module, shape: tuple[int, ...], expected: list[int]
) -> None:
    assert axes(model, torch.ones(shape)) == expected


def test_after_a_permutation_the_axis_is_the_one_of_the_last_width() -> None:
    conv_then_last = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Sequential(ChannelsLast()))
    assert axes(conv_then_last, torch.ones(2, 3, 4, 4))[-1] == 3


def test_the_product_of_two_activations_settles_no_axis() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            features = self.conv(x)
            return torch.relu(features @ features.transpose(-1, -2))

    assert axes(Scores(), torch.ones(2, 4, 6, 6)) == [1, 1, 1]


def test_sampled_entries_are_distinct_and_the_same_for_all_units() -> None:
    grid = torch.arange(3 * 40.0).reshape(3, 1, 40).expand(3, 2, 40) + torch.tensor(
        [[[0.0], [0.5]]]
    )
    sample = sample_entries(grid, 1, count=50, generator=torch.Generator().manual_seed(0))
    assert sample.shape == (50, 2)
    assert len(sample[:, 0].unique()) == 50
    torch.testing.assert_close(sample[:, 1] - sample[:, 0], torch.full((50,), 0.5))


def test_a_sample_of_few_entries_is_a_copy_of_all() -> None:
    grid = torch.randn(4, 3)
    sample = sample_entries(grid, 1, count=50, generator=torch.Generator())
    assert torch.equal(sample, grid)
    assert sample.data_ptr() != grid.data_ptr()
