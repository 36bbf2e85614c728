"""Claims of the literature about the cost of gradients, each with its number."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

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


def test_backpropagation_takes_no_more_than_a_few_forward_passes_of_time() -> None:
    """The median over the widths, with room for a busy machine: 5 and as much again."""
    ratios = sorted(cost.time_ratio for cost in costs())
    assert 1 < ratios[1] < 10


def test_backpropagation_grows_like_n_and_differences_like_n_squared() -> None:
    assert growth().forward == pytest.approx(1, abs=0.02)
    assert growth().gradient == pytest.approx(1, abs=0.02)
    assert growth().differences == pytest.approx(2, abs=0.02)


def test_the_times_grow_by_one_power_of_n_more_for_differences() -> None:
    """Each weight costs two forward passes, whatever the machine makes of a pass."""
    assert growth().differences_time - growth().forward_time == pytest.approx(1, abs=0.35)
    assert growth().differences_time > growth().gradient_time + 0.5


def test_for_a_million_weights_differences_cost_700_thousand_times_as_much() -> None:
    largest = costs()[-1]
    assert largest.weights == 4 * (512 * 512 + 512) == 1_050_624
    assert largest.saving == pytest.approx(2 * largest.weights / 2.75)
    assert largest.saving > 700_000


def test_both_gradients_agree() -> None:
    assert max(cost.disagreement for cost in costs()) < 1e-6
