"""Tests of the trace: closed forms, variances, and estimates that are honest about their error."""

from __future__ import annotations

import inspect
import math
import statistics
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.curvature.curvature import curvature_matrix
from leadline.measure.curvature.trace import Trace, trace


class Quadratic(nn.Module):
    """w^T A w / 2, whose Hessian is A."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = a
        self.weight = nn.Parameter(torch.zeros(len(a), dtype=a.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight @ self.a @ self.weight / 2 * x.mean()


def of(a: Tensor, **options: Any) -> Trace:
    one = torch.ones(1, dtype=a.dtype)
    return trace(Quadratic(a), one, loss=lambda value, _: value, **options)


def rotated(spectrum: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = len(spectrum)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator).double()).Q
    return basis @ torch.diag(spectrum.double()) @ basis.T


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton", "empirical_fisher"])
def test_a_small_matrix_has_its_exact_trace(matrix: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    batch = torch.randn(9, 4, dtype=torch.float64), torch.randint(0, 3, (9,))
    dense = curvature_matrix(model, batch, loss=functional.cross_entropy, matrix=matrix).dense()
    found = trace(model, batch, loss=functional.cross_entropy, matrix=matrix)
    assert found.method == "exact"
    assert found.value == pytest.approx(float(dense.trace()), rel=1e-10)
    assert found.mean_eigenvalue == pytest.approx(float(dense.trace()) / 43)
    assert found.standard_error == 0


def test_signs_make_hutchinson_exact_on_a_diagonal_matrix() -> None:
    diagonal = torch.linspace(-1, 3, 100, dtype=torch.float64)
    found = of(torch.diag(diagonal), products=6, method="hutchinson")
    assert found.value == pytest.approx(100.0)
    assert found.standard_error < 1e-12


def test_hutchinsons_standard_error_is_that_of_the_theory() -> None:
    a = rotated(torch.linspace(-1, 3, 120))
    found = of(a, products=110, method="hutchinson")
    variance = 2 * (a.square().sum() - a.diagonal().square().sum())
    assert found.standard_error == pytest.approx(math.sqrt(float(variance) / 110), rel=0.25)


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_the_true_trace_lies_within_the_standard_errors(method: Any) -> None:
    a = rotated(torch.cat([torch.linspace(-1, 1, 140), torch.tensor([30.0, 10.0])]))
    deviations = [
        (found.value - 40) / found.standard_error
        for found in (of(a, products=45, method=method, seed=seed) for seed in range(20))
    ]
    assert 0.6 < statistics.pstdev(deviations) < 1.6  # t-distributed, about 1
    assert abs(statistics.fmean(deviations)) < 0.7  # 3 / square root of 20


def test_hutch_plus_plus_is_exact_for_a_matrix_of_low_rank() -> None:
    spectrum = torch.zeros(100)
    spectrum[:5] = torch.tensor([9.0, 7.0, -5.0, 3.0, 1.0])
    found = of(rotated(spectrum), products=18)
    assert found.value == pytest.approx(15, rel=1e-9)
    assert found.products == 18


def test_hutch_plus_plus_errs_less_where_a_few_eigenvalues_stand_out() -> None:
    a = rotated(torch.cat([torch.linspace(-0.1, 0.1, 190), torch.linspace(5, 50, 10)]))
    exact = float(a.trace())

    def error(method: Any) -> float:
        runs = [of(a, products=45, method=method, seed=s).value - exact for s in range(5)]
        return statistics.fmean(abs(run) for run in runs)

    assert error("hutch++") < 0.1 * error("hutchinson")


@pytest.mark.parametrize(
    ("options", "message"), [({"products": 5}, "products=5"), ({"method": "hutch"}, "'hutch'")]
)
def test_what_cannot_be_estimated_is_explained(options: Any, message: str) -> None:
    model = Quadratic(torch.eye(3))
    with pytest.raises(MeasurementError, match=message):
        # Unwrapped: the check of annotations in tests would speak before the library does.
        inspect.unwrap(trace)(model, torch.ones(1), loss=lambda value, _: value, **options)
