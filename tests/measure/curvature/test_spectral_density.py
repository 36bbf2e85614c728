"""Tests of the spectral density: exact moments, known spectra, and the dense one smoothed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.curvature.curvature import curvature_matrix
from leadline.measure.curvature.spectral_density import SpectralDensity, spectral_density


class Quadratic(nn.Module):
    """w^T A w / 2, whose Hessian is A."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = a
        self.weight = nn.Parameter(torch.zeros(len(a), dtype=a.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight @ self.a @ self.weight / 2 * x.mean()


def of(a: Tensor, **options: Any) -> SpectralDensity:
    one = torch.ones(1, dtype=a.dtype)
    return spectral_density(Quadratic(a), one, loss=lambda value, _: value, **options)


def rotated(spectrum: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = len(spectrum)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator).double()).Q
    return basis @ torch.diag(spectrum.double()) @ basis.T


def test_moments_up_to_twice_the_steps_are_those_of_the_random_vector() -> None:
    a = rotated(torch.linspace(-1, 2, 60))
    found = of(a, steps=5, vectors=1, seed=3)
    signs = torch.randint(0, 2, (60,), generator=torch.Generator().manual_seed(3)) * 2 - 1
    start = signs.double() / math.sqrt(60)
    image = start
    for power in range(1, 10):  # 2 x 5 - 1
        image = a @ image
        assert found.moment(power) == pytest.approx(float(start @ image), rel=1e-9)


def test_few_distinct_eigenvalues_are_found_exactly_with_their_shares() -> None:
    spectrum = torch.cat([torch.zeros(150), torch.ones(40), torch.full((10,), -3.0)])
    found = of(rotated(spectrum), steps=40, vectors=30)
    for nodes in found.nodes:
        assert nodes == pytest.approx([-3, 0, 1], abs=1e-9)  # it stops by itself
    assert found.share_below(-1) == pytest.approx(0.05, abs=0.01)
    assert found.share_below(0.5) == pytest.approx(0.8, abs=0.02)
    assert found.range == pytest.approx((-3, 1))


def test_the_density_is_that_of_the_dense_hessian_smoothed_as_widely() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    batch = torch.randn(40, 6, dtype=torch.float64), torch.randint(0, 3, (40,))
    dense = curvature_matrix(model, batch, loss=functional.cross_entropy).dense()
    exact = torch.linalg.eigvalsh(dense)
    width = float(exact.max() - exact.min()) / 30
    points = torch.linspace(float(exact.min()) - 0.1, float(exact.max()) + 0.1, 200).double()
    bells = torch.exp(-(((points[:, None] - exact) / width) ** 2) / 2)
    expected = bells.mean(dim=1) / (width * math.sqrt(2 * math.pi))
    density = spectral_density(model, batch, loss=functional.cross_entropy, steps=30, vectors=10)
    found = torch.tensor(density.at(points.tolist(), width=width), dtype=torch.float64)
    distance = torch.trapezoid((found - expected).abs(), points)
    # 2 / square root of (10 vectors x 163 parameters) is 0.05
    assert float(distance) < 0.1
    assert density.dimension * density.moment(1) == pytest.approx(float(exact.sum()), rel=0.2)


def test_the_area_under_the_density_is_one() -> None:
    found = of(rotated(torch.linspace(-1, 2, 60)), steps=20)
    points = torch.linspace(-2, 3, 2000)
    area = torch.trapezoid(torch.tensor(found.at(points.tolist())), points)
    assert float(area) == pytest.approx(1, abs=1e-3)
    assert all(sum(row) == pytest.approx(1) for row in found.weights)


def test_products_are_steps_times_vectors_and_the_seed_decides() -> None:
    a = rotated(torch.linspace(-1, 2, 60))
    found = of(a, steps=7, vectors=3)
    assert found.products == 21
    assert of(a, steps=7, vectors=3) == found
    assert of(a, steps=7, vectors=3, seed=1) != found


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: of(torch.eye(3), steps=0), "steps=0"),
        (lambda: of(torch.eye(3), vectors=0), "vectors=0"),
        (lambda: of(torch.eye(3)).at([0.0], width=0.0), "a width above 0"),
    ],
)
def test_what_cannot_be_estimated_is_explained(act: Any, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        act()
