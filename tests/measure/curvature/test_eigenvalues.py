"""Tests of the eigenvalues of a network's curvature against those of the dense matrix."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.curvature.curvature import curvature_matrix
from leadline.measure.curvature.eigenvalues import eigenvalues


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)).double()


def data(examples: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(examples, 6, generator=generator, dtype=torch.float64)
    return 3 * inputs, torch.randint(0, 3, (examples,), generator=generator)


def dense(model: nn.Module, matrix: Any) -> Tensor:
    full = curvature_matrix(model, data(), loss=functional.cross_entropy, matrix=matrix).dense()
    return torch.linalg.eigvalsh((full + full.T) / 2)


@pytest.mark.parametrize(
    "matrix", ["hessian", "gauss_newton", "fisher", "monte_carlo_fisher", "empirical_fisher"]
)
def test_the_largest_are_those_of_the_dense_matrix(matrix: Any) -> None:
    model = network()
    expected = sorted(dense(model, matrix).tolist(), key=abs, reverse=True)[:5]
    found = eigenvalues(model, data(), loss=functional.cross_entropy, matrix=matrix)
    assert found.converged
    assert found.values == pytest.approx(expected, rel=1e-4)  # the bar, at the defaults


def test_both_ends_of_the_hessian_are_those_of_the_dense_one() -> None:
    model = network()
    exact = dense(model, "hessian").tolist()
    for which, expected in (("largest", exact[::-1][:3]), ("smallest", exact[:3])):
        found = eigenvalues(
            model,
            data(),
            loss=functional.cross_entropy,
            count=3,
            which=which,  # type: ignore[arg-type]
        )
        assert found.values == pytest.approx(expected, rel=1e-4)
        assert exact[0] < 0  # else the smallest would prove nothing


def test_equal_outputs_repeat_every_eigenvalue() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 3, bias=False).double()
    inputs = torch.randn(50, 8, dtype=torch.float64)
    batch = inputs, torch.randn(50, 3, dtype=torch.float64)
    single = torch.linalg.eigvalsh(2 / 150 * inputs.T @ inputs).flip(0)
    found = eigenvalues(model, batch, loss=functional.mse_loss, count=7)
    assert found.values == pytest.approx(single.repeat_interleave(3)[:7].tolist(), rel=1e-4)


def test_several_batches_give_the_eigenvalues_of_the_whole() -> None:
    model, (inputs, targets) = network(), data()
    parts = [(inputs[:5], targets[:5]), (inputs[5:], targets[5:])]
    whole = eigenvalues(model, (inputs, targets), loss=functional.cross_entropy, count=2)
    divided = eigenvalues(model, parts, loss=functional.cross_entropy, count=2)
    assert divided.values == pytest.approx(whole.values, rel=1e-6)


def test_the_profile_tells_where_a_direction_lies() -> None:
    found = eigenvalues(network(), data(), loss=functional.cross_entropy, count=2)
    assert found.profile.layers == ("0.weight", "0.bias", "2.weight", "2.bias")
    for row in found.profile.values.values():
        assert sum(row) == pytest.approx(1)

    class Sharp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.sharp = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.flat.square().sum() + 50 * self.sharp.square().sum() * x.mean()

    sharp = eigenvalues(Sharp(), torch.ones(1), loss=lambda value, _: value, count=1)
    assert sharp.profile.worst("eigenvector 1") == ("sharp",)
    assert sharp.profile.at("sharp")["eigenvector 1"] == pytest.approx(1)


def test_the_model_and_the_random_stream_stay_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 3))
    model.double()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    first = eigenvalues(model, data(), loss=functional.cross_entropy, count=2)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert eigenvalues(model, data(), loss=functional.cross_entropy, count=2).values == first.values


def test_a_budget_that_ends_first_is_told() -> None:
    found = eigenvalues(network(), data(), loss=functional.cross_entropy, max_products=5)
    assert not found.converged
    assert found.products == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 124}, r"1 to 123 eigenvalues[\s\S]*count=124"),
        ({"count": 0}, "count=0"),
        ({"which": "top"}, "which='top'"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
    ],
)
def test_a_search_that_cannot_be_made_is_explained(options: Any, message: str) -> None:
    # Unwrapped: the check of annotations in tests would speak before the library does.
    plain = inspect.unwrap(eigenvalues)
    with pytest.raises(MeasurementError, match=message):
        plain(network(), data(), loss=functional.cross_entropy, **options)


def test_a_second_derivative_that_is_infinite_is_explained() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            return (self.weight.abs() * x.sum()).pow(1.5).sum()

    with pytest.raises(MeasurementError, match="a power below 2"):
        eigenvalues(Root(), torch.ones(2), loss=lambda value, _: value, count=1)
