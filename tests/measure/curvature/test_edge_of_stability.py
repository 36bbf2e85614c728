"""Tests of the edge of stability: bounds that gradient descent itself confirms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.measure.curvature.edge_of_stability import Sharpness, sharpness


class Quadratic(nn.Module):
    """Half the sum of curvature x weight^2."""

    def __init__(self, curvatures: tuple[float, ...]) -> None:
        super().__init__()
        self.curvatures = torch.tensor(curvatures, dtype=torch.float64)
        self.weight = nn.Parameter(torch.ones(len(curvatures), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.curvatures * self.weight.square()).sum() / 2 * x.mean()


def measure(model: nn.Module, **options: Any) -> Sharpness:
    return sharpness(model, torch.ones(1).double(), loss=lambda value, _: value, **options)


@pytest.mark.parametrize("margin", [0.98, 1.02])
@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.5, False), (0.9, True), (0.5, True)]
)
def test_sgd_diverges_exactly_above_the_bound(
    margin: float, momentum: float, nesterov: bool
) -> None:
    probe = measure(Quadratic((10.0, 1.0, 0.1)), lr=1.0, momentum=momentum, nesterov=nesterov)
    lr = margin * probe.bound / 10
    model = Quadratic((10.0, 1.0, 0.1))
    found = measure(model, lr=lr, momentum=momentum, nesterov=nesterov)
    assert found.value == pytest.approx(10, rel=1e-4)
    assert found.ratio == pytest.approx(margin, rel=1e-4)
    assert found.stable == (margin < 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, nesterov=nesterov)
    for _ in range(1500):
        optimizer.zero_grad()
        model(torch.ones(1).double()).backward()
        optimizer.step()
    assert (abs(float(model.weight[0].detach())) > 1e3) == (margin > 1)
    assert (abs(float(model.weight[0].detach())) < 1e-3) == (margin < 1)


def test_the_most_negative_eigenvalue_is_not_taken_for_sharpness() -> None:
    assert measure(Quadratic((-9.0, 2.0)), lr=0.1).value == pytest.approx(2)


@pytest.mark.parametrize(
    ("options", "message"), [({"lr": 0.0}, "lr=0.0"), ({"lr": 0.1, "momentum": 1.0}, "=1.0")]
)
def test_settings_that_no_optimizer_takes_are_refused(options: Any, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        measure(Quadratic((1.0,)), **options)
