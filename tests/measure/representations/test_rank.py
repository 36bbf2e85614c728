"""Tests of the ranks, against singular values and closed forms."""

from __future__ import annotations

import inspect
import math

import numpy
import pytest
import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.measure.representations.rank import (
    effective_rank,
    participation_ratio,
    representation_rank,
    stable_rank,
)


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (20, 20)])
def test_ranks_are_those_of_the_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape) * torch.logspace(0, -3, shape[1])
    s = numpy.linalg.svd(matrix.double().numpy(), compute_uv=False)
    p = s / s.sum()
    assert effective_rank(matrix) == pytest.approx(math.exp(-(p * numpy.log(p)).sum()), rel=1e-5)
    assert stable_rank(matrix) == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-5)
    expected = (s**2).sum() ** 2 / (s**4).sum()
    assert participation_ratio(matrix) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_equal_singular_values_count_each_direction_once(rank: int) -> None:
    torch.manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(20, rank))[0],
        torch.linalg.qr(torch.randn(9, rank))[0],
    )
    matrix = 5 * left @ right.T
    for measure in (effective_rank, stable_rank, participation_ratio):
        assert measure(matrix) == pytest.approx(rank, rel=1e-4)


def test_two_singular_values_have_the_closed_form() -> None:
    matrix = torch.diag(torch.tensor([3.0, 1.0]))
    assert effective_rank(matrix) == pytest.approx(4 / 3**0.75, rel=1e-6)
    assert stable_rank(matrix) == pytest.approx(10 / 9)
    assert participation_ratio(matrix) == pytest.approx(100 / 82)


def test_a_matrix_of_zeros_has_rank_zero() -> None:
    zeros = torch.zeros(3, 3)
    assert effective_rank(zeros) == stable_rank(zeros) == participation_ratio(zeros) == 0.0


@pytest.mark.parametrize("centred", [True, False])
def test_a_convolutions_ranks_are_those_of_its_channels(centred: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(inplace=True))
    inputs = torch.randn(3, 2, 8, 8)
    profile = representation_rank(model, inputs, centred=centred)
    with torch.no_grad():
        channels = model[0](inputs).movedim(1, -1).reshape(-1, 6)
    for layer, matrix in (("0", channels), ("1", channels.relu())):
        deviation = matrix - matrix.mean(0)
        row = profile.at(layer)
        assert row["effective_rank"] == pytest.approx(
            effective_rank(deviation if centred else matrix), rel=1e-5
        )
        assert row["spread"] == pytest.approx((deviation.norm() / matrix.norm()).item(), rel=1e-5)
        assert row["highest"] == 6


def test_a_mean_that_all_entries_share_hides_the_others_unless_centred() -> None:
    inputs = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) + 100
    model = nn.Sequential(nn.Identity())
    assert representation_rank(model, inputs).at("0")["effective_rank"] > 7
    raw = representation_rank(model, inputs, centred=False).at("0")
    assert raw["stable_rank"] < 1.01
    assert raw["spread"] < 0.011


def test_a_sample_of_entries_is_enough_and_bounds_the_rank() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64))
    row = representation_rank(model, torch.randn(1000, 4), entries=20).at("0")
    assert row["highest"] == 19
    assert 3 < row["effective_rank"] <= 4.001


def test_a_layer_that_is_not_finite_is_nan_not_an_error() -> None:
    class Overflow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * math.inf

    profile = representation_rank(nn.Sequential(nn.Linear(2, 2), Overflow()), torch.ones(4, 2))
    assert math.isnan(profile.at("1")["effective_rank"])


def test_what_has_no_rank_is_described() -> None:
    with pytest.raises(MeasurementError, match=r"finite numbers[\s\S]*\(2, 2, 2\)"):
        inspect.unwrap(effective_rank)(torch.ones(2, 2, 2))  # past the shape checks
    with pytest.raises(MeasurementError, match="NaN or infinity"):
        stable_rank(torch.full((2, 2), torch.nan))
    with pytest.raises(MeasurementError, match="entries=1"):
        representation_rank(nn.Linear(2, 2), torch.ones(4, 2), entries=1)
