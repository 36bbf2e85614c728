"""Shattered gradients: the theorems and figures of Balduzzi et al. 2017 (arXiv:1702.08591).

The theorems assume that half of the units are active for an example and a quarter for both of two.
Two families of networks meet that: ReLUs behind a norm that removes the batch's mean, and gates
drawn at random for each example. The norms' statistics are constants here, as in the paper.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from leadline.measure.gradients.shattering import Shattering, gradient_correlation, shattering

WIDTH, EXAMPLES = 256, 128
FIRST_SEED = 0


class Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0).detach()


class Normalise(nn.Module):
    """A batch norm whose statistics are constants."""

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(x.detach(), dim=0, correction=0)
        return (x - mean) / deviation


class Gate(nn.Module):
    """Passes half of the units, others for each example."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.open = (torch.rand(EXAMPLES, WIDTH, generator=generator) < 0.5).float()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.open


class Layer(nn.Module):
    """branch(x), or x + beta branch(x); the branch is norm, gate, weights of variance 2 / N."""

    def __init__(
        self, norm: nn.Module, gate: nn.Module, generator: torch.Generator, width: int = WIDTH
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(norm, gate, nn.Linear(width, width, bias=False))
        weight = self.branch[2].weight
        nn.init.normal_(weight, std=(2 / width) ** 0.5, generator=generator)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x)


class Residual(Layer):
    beta = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x + self.beta * self.branch(x)


def deep(
    layer: type[Layer], depth: int, seed: int, *, norm: Callable[[], nn.Module], gated: bool = False
) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    return nn.Sequential(
        *(layer(norm(), Gate(generator) if gated else nn.ReLU(), generator) for _ in range(depth))
    )


def correlation_at_the_input(make: Callable[[int], nn.Module], *, seeds: int) -> float:
    return statistics.fmean(
        gradient_correlation(
            make(seed),
            torch.randn(EXAMPLES, WIDTH, generator=torch.Generator().manual_seed(100 + seed)),
            seed=seed,
        ).column("correlation")[0]
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
    )


@pytest.mark.parametrize("gated", [True, False], ids=["random gates", "centred ReLU"])
@pytest.mark.parametrize("depth", [1, 2, 4, 6])
def test_in_a_plain_net_the_correlation_is_one_half_to_the_power_of_the_depth(
    depth: int, gated: bool
) -> None:
    """Theorem 1: variance 1, covariance 1 / 2^L with He's initialisation."""
    norm = nn.Identity if gated else Centre
    found = correlation_at_the_input(
        lambda seed: deep(Layer, depth, seed, norm=norm, gated=gated), seeds=4
    )
    assert found ** (1 / depth) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("gated", [True, False], ids=["random gates", "centred ReLU"])
@pytest.mark.parametrize("depth", [1, 4, 8, 12])
def test_with_shortcuts_it_is_three_quarters_to_the_power_of_the_depth(
    depth: int, gated: bool
) -> None:
    """Theorem 2: variance 2^L, covariance (3/2)^L, correlation (3/4)^L."""
    norm = nn.Identity if gated else Centre
    found = correlation_at_the_input(
        lambda seed: deep(Residual, depth, seed, norm=norm, gated=gated), seeds=4
    )
    assert found ** (1 / depth) == pytest.approx(0.75, rel=0.03)


def test_within_one_plain_net_each_relu_halves_the_correlation() -> None:
    """Theorem 1, read in the Profile: the slope over depth is one half a layer."""
    x = torch.randn(EXAMPLES, WIDTH, generator=torch.Generator().manual_seed(FIRST_SEED))
    rows = ["(input)", *(f"{i}.branch.2" for i in range(4))]
    profiles = [
        gradient_correlation(deep(Layer, 4, FIRST_SEED + seed, norm=Centre), x) for seed in range(6)
    ]
    found = [statistics.fmean(p.at(row)["correlation"] for p in profiles) for row in rows]
    assert found[-1] == pytest.approx(1.0)  # the output itself
    for before, after in itertools.pairwise(found):
        assert before / after == pytest.approx(0.5, rel=0.2)


def theorem_3(depth: int, beta: float, added: float) -> float:
    """The correlation where branch l is divided by the variance 1 + added beta^2 (l - 1)."""
    product = 1.0
    for layer in range(depth):
        share = beta**2 / (1 + added * beta**2 * layer)
        product *= (1 + share / 2) / (1 + share)
    return product


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_with_batch_norm_it_falls_only_with_the_root_of_the_depth(beta: float) -> None:
    """Theorem 3: variance b^2 (L - 1) + 1, covariance ~ b sqrt(L), correlation ~ 1 / (b sqrt(L)).

    The variance added by each branch is b^2 there: the gates pass half of a second moment of 1,
    times 2. At finite depth the ratio of the two products is compared.
    """

    class Scaled(Residual):
        pass

    Scaled.beta = beta
    found = {
        depth: correlation_at_the_input(
            lambda seed, depth=depth: deep(Scaled, depth, seed, norm=Normalise, gated=True),  # type: ignore[misc]
            seeds=6,
        )
        for depth in (8, 32 if beta == 1.0 else 16)
    }
    for depth, value in found.items():
        assert value == pytest.approx(theorem_3(depth, beta, 1.0), rel=0.12)
        assert 0.75 < value * beta * math.sqrt(depth) < 1.2
    if beta == 1.0:
        slope = math.log(found[32] / found[8]) / math.log(4)
        assert slope == pytest.approx(-0.5, abs=0.1)


def test_a_batch_norm_that_removes_the_mean_makes_it_fall_a_little_faster() -> None:
    """Theorem 3 in a real network: still a power of the depth, but of -0.73 instead of -0.5.

    Of a ReLU's second moment 1/2, the share 1/pi belongs to its mean, which is the same for all
    examples and which the next batch norm removes: branches add 1 - 1/pi to the variance that it
    divides by, not 1. The products then fall as L^(-1 / (2 (1 - 1/pi))) = L^-0.73.
    """
    found = {
        depth: correlation_at_the_input(
            lambda seed, depth=depth: deep(Residual, depth, seed, norm=Normalise),  # type: ignore[misc]
            seeds=6,
        )
        for depth in (8, 24)
    }
    for depth, value in found.items():
        assert value == pytest.approx(theorem_3(depth, 1.0, 1 - 1 / math.pi), rel=0.15)
    assert found[24] > 0.1  # where a plain net has 6e-8


# ---- figures 1 and 2: the gradient of a function of one input on a grid of 256 points in [-2, 2]


def one_input(layer: type[Layer], depth: int, seed: int, *, norm: type[nn.Module]) -> nn.Module:
    """`depth` rectifier layers of 200 units between one number and one number."""
    width, generator = 200, torch.Generator().manual_seed(seed)
    first, head = nn.Linear(1, width), nn.Linear(width, 1)
    nn.init.normal_(first.weight, std=2**0.5, generator=generator)
    nn.init.normal_(first.bias, std=2**0.5, generator=generator)
    nn.init.normal_(head.weight, std=width**-0.5, generator=generator)
    blocks = [layer(norm(), nn.ReLU(), generator, width) for _ in range(depth - 1)]
    return nn.Sequential(first, *blocks, nn.ReLU(), head)


def on_the_grid(
    layer: type[Layer], depth: int, *, norm: type[nn.Module], seeds: int = 4
) -> list[Shattering]:
    ends = torch.tensor([[-2.0], [2.0]])
    return [
        shattering(one_input(layer, depth, seed, norm=norm), ends)
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
    ]


def whiteness(found: list[Shattering]) -> float:
    return statistics.fmean(one.whiteness for one in found)


def neighbours(found: list[Shattering]) -> float:
    return statistics.fmean(one.correlation[1] for one in found)


def test_the_gradients_of_plain_nets_whiten_with_depth() -> None:
    """Figure 1a and b, 2a: one layer resembles brown noise, 24 layers white noise."""
    shallow, deeper, deep_net = (on_the_grid(Layer, depth, norm=Centre) for depth in (1, 10, 24))
    assert -0.4 < whiteness(shallow) < 0.4
    assert neighbours(shallow) > 0.95  # brown noise: 0.981
    assert 0.4 < neighbours(deeper) < 0.95
    assert whiteness(deep_net) == pytest.approx(1.0, abs=0.1)
    # Indistinguishable: 256 points of white noise have an autocorrelation of 0 +- 1/16.
    assert abs(neighbours(deep_net)) < 3 / 16


def test_the_gradients_of_residual_nets_do_not_whiten() -> None:
    """Figure 1c, 2b: there are still correlations in the 50-layer resnet."""
    found = on_the_grid(Residual, 50, norm=Normalise, seeds=3)
    assert neighbours(found) > 0.5  # white noise: 0 +- 1/16


def test_small_branches_keep_the_gradients_of_50_layers_brown() -> None:
    """Figure 2c: with b = 0.1 even the 50-layer resnet resembles brown noise."""

    class Scaled(Residual):
        beta = 0.1

    found = on_the_grid(Scaled, 50, norm=Normalise, seeds=2)
    assert neighbours(found) > 0.93
    assert whiteness(found) < 0.5
