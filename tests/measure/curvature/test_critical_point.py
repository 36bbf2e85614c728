"""Tests of critical points: functions whose kind is known, and directions that lead down."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.curvature.critical_point import CriticalPoint, critical_point


class Surface(nn.Module):
    """A function of a point."""

    def __init__(self, function: Callable[[Tensor], Tensor], at: list[float]) -> None:
        super().__init__()
        self.function = function
        self.point = nn.Parameter(torch.tensor(at, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.point) * x.mean()


def at(function: Callable[[Tensor], Tensor], *point: float, **options: Any) -> CriticalPoint:
    one = torch.ones(1, dtype=torch.float64)
    return critical_point(Surface(function, list(point)), one, loss=lambda v, _: v, **options)


@pytest.mark.parametrize(
    ("function", "point", "kind"),
    [
        (lambda p: p[0] ** 2 + 3 * p[1] ** 2, (0.0, 0.0), "minimum"),
        (lambda p: -(p[0] ** 2) - 3 * p[1] ** 2, (0.0, 0.0), "maximum"),
        (lambda p: p[0] ** 2 - p[1] ** 2, (0.0, 0.0), "saddle"),
        (lambda p: p[0] * p[1], (0.0, 0.0), "saddle"),
        (lambda p: p[0] ** 2 - p[1] ** 2, (0.3, 0.0), "not critical"),
        (lambda p: p[0] ** 2 + p[1] ** 4, (0.0, 0.0), "degenerate"),
        (lambda p: p[0] ** 3 - 3 * p[0] * p[1] ** 2, (0.0, 0.0), "degenerate"),  # monkey saddle
        (lambda p: -torch.cos(p[0]) - torch.cos(p[1]), (0.0, torch.pi), "saddle"),
        (lambda p: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2, (1.0, 1.0), "degenerate"),
        (lambda p: p[0] ** 2, (0.0,), "minimum"),
        (lambda p: p[0] ** 2 + p[1] ** 2, (0.0, 0.0), "minimum"),  # one eigenvalue, twice
    ],
)
def test_the_kind_is_that_of_the_function(function: Any, point: Any, kind: str) -> None:
    assert at(function, *point).kind == kind


def test_rosenbrocks_valley_is_a_minimum_once_a_thousandth_counts() -> None:
    """Its eigenvalues at the minimum are 1001.6 and 0.39936: a ratio of 1 to 2508."""
    found = at(
        lambda p: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2,
        *(1.0, 1.0),
        curvature_tolerance=1e-4,
    )
    assert found.kind == "minimum"
    assert (found.smallest, found.largest) == pytest.approx((0.39936, 1001.60064), rel=1e-5)
    assert found.descent is None


def test_the_extremes_are_those_of_the_matrix_in_many_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(80, 80, generator=generator, dtype=torch.float64)).Q
    spectrum = torch.cat([torch.tensor([-0.5]), torch.linspace(0.01, 1, 78), torch.tensor([4.0])])
    a = basis @ torch.diag(spectrum.double()) @ basis.T
    found = at(lambda p: p @ a @ p / 2, *[0.0] * 80)
    assert found.kind == "saddle"
    assert found.largest == pytest.approx(4, rel=1e-4)
    assert found.smallest == pytest.approx(-0.5, abs=4e-4)  # 1e-4 of the largest
    assert abs(found.smallest + 0.5) <= found.uncertainty < 0.04
    assert found.descent is not None
    assert abs(float(found.descent @ basis[:, 0])) == pytest.approx(1, abs=1e-2)
    assert found.products < 80


def test_the_loss_falls_to_both_sides_along_the_way_down() -> None:
    def function(p: Tensor) -> Tensor:
        return p[0] ** 2 - torch.cos(p[1] + 1) * p[2] + p[2] ** 2

    found = at(function, 0.0, torch.pi / 2 - 1, 0.0)
    assert found.kind == "saddle" and found.descent is not None
    start = torch.tensor([0.0, torch.pi / 2 - 1, 0.0], dtype=torch.float64)
    for side in (-0.1, 0.1):
        assert function(start + side * found.descent) < function(start)


def test_the_profile_tells_where_gradient_and_way_down_lie() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            return (self.up.square() - self.down.square()).sum() * x.mean()

    found = critical_point(Two(), torch.ones(1), loss=lambda value, _: value)
    assert found.kind == "not critical"
    assert found.gradient_norm == pytest.approx(8**0.5)
    assert found.profile.at("up")["gradient"] == pytest.approx(8**0.5)
    assert found.profile.at("down")["way down"] == pytest.approx(1)


def test_the_model_and_the_random_stream_stay_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.4), nn.Linear(5, 2))
    batch = torch.randn(8, 4), torch.randint(0, 2, (8,))
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    critical_point(model, batch, loss=functional.cross_entropy)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["gradient", "curvature"])
def test_a_tolerance_that_decides_nothing_is_refused(name: str) -> None:
    with pytest.raises(MeasurementError, match=f"a {name}_tolerance between 0 and 1"):
        at(lambda p: p.square().sum(), 0.0, 0.0, **{f"{name}_tolerance": 0.0})


def test_a_search_that_is_cut_short_decides_for_a_saddle_only() -> None:
    """After two products, a single negative eigenvalue among two hundred is not yet in sight."""
    hidden = torch.cat([torch.tensor([-1e-2]), torch.linspace(1, 2, 199)]).double()
    found = at(lambda p: (hidden * p.square()).sum(), *[0.0] * 200, max_products=2)
    assert not found.converged and found.smallest > 0
    assert found.kind == "undecided"
    assert at(lambda p: (hidden * p.square()).sum(), *[0.0] * 200).kind == "saddle"
    half = torch.cat([-torch.linspace(1, 2, 100), torch.linspace(1, 2, 100)]).double()
    found = at(lambda p: (half * p.square()).sum(), *[0.0] * 200, max_products=4)
    assert not found.converged
    assert found.kind == "saddle"
