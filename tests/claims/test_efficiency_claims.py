"""Claims of the literature about the cost of gradients, each with its number."""

from __future__ import annotations

import math
import statistics
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from leadline.measure.efficiency import CostGrowth, GradientCost, cost_growth, gradient_cost

WIDTHS = (128, 256, 512)


@cache
def costs() -> tuple[GradientCost, ...]:
    """Four dense layers of growing width, the batch fixed."""
    torch.manual_seed(0)
    found = []
    for width in WIDTHS:
        layers = [nn.Linear(width, width) for _ in range(4)]
        model = nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())])
        batch = (torch.randn(256, width), torch.randn(256, width))
        found.append(gradient_cost(model, batch, loss=functional.mse_loss, sample=6, repeats=7))
    return tuple(found)


@cache
def growth() -> CostGrowth:
    return cost_growth(costs())


def test_backpropagation_costs_at_most_three_forward_passes_in_multiply_adds() -> None:
    """Baur and Strassen 1983; Griewank and Walther 2008: at most 4 to 5; for products 3."""
    for cost in costs():
        assert cost.ratio == pytest.approx(3 - 1 / 4)


def test_backpropagation_grows_like_n_and_differences_like_n_squared() -> None:
    """Here the count of one pair of passes is multiplied by N; below all weights are moved."""
    assert growth().forward == pytest.approx(1, abs=0.02)
    assert growth().gradient == pytest.approx(1, abs=0.02)
    assert growth().differences == pytest.approx(2, abs=0.02)


def test_for_a_million_weights_differences_cost_700_thousand_times_as_much() -> None:
    largest = costs()[-1]
    assert largest.weights == 4 * (512 * 512 + 512) == 1_050_624
    assert largest.saving == pytest.approx(2 * largest.weights / 2.75)
    assert largest.saving > 700_000


def test_both_gradients_agree() -> None:
    assert max(cost.disagreement for cost in costs()) < 1e-6


# -------------------------------------------------- every weight moved, nothing multiplied by N
SMALL_WIDTHS = (4, 8, 12, 16)


def small(width: int) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    layers = [nn.Linear(width, width, bias=False) for _ in range(2)]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1]).double()
    inputs, targets = torch.randn(2, 32, width, dtype=torch.float64)
    return model, inputs, targets


def by_backpropagation(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    loss = functional.mse_loss(model(inputs), targets)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, tuple(model.parameters()))])


@torch.no_grad()
def by_differences(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The complete loop over all N weights, two forward passes for each."""
    slopes, step = [], 1e-5
    for weight in model.parameters():
        entries = weight.view(-1)
        for place, before in enumerate(entries.tolist()):
            values = []
            for moved in (before + step, before - step):
                entries[place] = moved
                values.append(float(functional.mse_loss(model(inputs), targets)))
            entries[place] = before
            slopes.append((values[0] - values[1]) / (2 * step))
    return torch.tensor(slopes, dtype=torch.float64)


def exponent(costs: list[float]) -> float:
    """b of cost = a N^b over the small networks, by least squares on logarithms."""
    sizes = [math.log(2 * width**2) for width in SMALL_WIDTHS]
    return statistics.linear_regression(sizes, [math.log(cost) for cost in costs]).slope


def test_moving_every_weight_counts_n_squared_over_the_complete_loop() -> None:
    """O(N) against O(N^2), counted while N = 32 to 512 weights are all moved."""
    counted: dict[str, list[float]] = {"backward": [], "differences": []}
    for width in SMALL_WIDTHS:
        case = small(width)
        with FlopCounterMode(display=False) as backward:
            exact = by_backpropagation(*case)
        with FlopCounterMode(display=False) as differences:
            found = by_differences(*case)
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-8)
        counted["backward"].append(backward.get_total_flops())
        counted["differences"].append(differences.get_total_flops())
    assert exponent(counted["backward"]) == pytest.approx(1, abs=0.02)
    assert exponent(counted["differences"]) == pytest.approx(2, abs=0.02)
    cost = gradient_cost(case[0], case[1:], loss=functional.mse_loss, sample=1, repeats=1)
    assert 2 * cost.differences == counted["differences"][-1]  # what the library says without
