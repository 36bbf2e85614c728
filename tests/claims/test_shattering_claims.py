"""Shattered gradients: the theorems and figures of Balduzzi et al. 2017 (arXiv:1702.08591).

The theorems assume that half of the units are active for an example and a quarter for both of two.
Two families of networks meet that: ReLUs behind a norm that removes the batch's mean, and gates
drawn at random for each example. Plain ReLU networks do not, and how they differ is tested too. The
norms' statistics are constants in the backward pass, as in the paper.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from functools import cache

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


def batch_norm() -> nn.Module:
    """A real one, in training mode; the measurement holds its statistics constant."""
    return nn.BatchNorm1d(WIDTH)


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


def test_without_independent_gates_a_plain_relu_net_keeps_more_than_theorem_1_says() -> None:
    """The examples grow alike with depth, and so do their active units.

    Measured 0.31, 0.14, 0.08 and 0.06 after 2, 4, 6 and 8 layers, means over 12 networks, where
    1 / 2^L is 0.25, 0.063, 0.016 and 0.004.
    """
    found = {
        depth: correlation_at_the_input(
            lambda seed, depth=depth: deep(Layer, depth, seed, norm=nn.Identity),  # type: ignore[misc]
            seeds=4,
        )
        for depth in (2, 4, 8)
    }
    assert found[2] == pytest.approx(0.31, rel=0.15)
    assert found[4] == pytest.approx(0.14, rel=0.3)
    assert found[8] > 6 / 2**8


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
    """Theorem 3 behind real batch norms, their statistics held constant: -0.73, not -0.5.

    Of a ReLU's second moment 1/2, the share 1/pi belongs to its mean, which is the same for all
    examples and which the next batch norm removes: branches add 1 - 1/pi to the variance that it
    divides by, not 1. The products then fall as L^(-1 / (2 (1 - 1/pi))) = L^-0.73.
    """
    found = {
        depth: correlation_at_the_input(
            lambda seed, depth=depth: deep(Residual, depth, seed, norm=batch_norm),  # type: ignore[misc]
            seeds=6,
        )
        for depth in (8, 24)
    }
    for depth, value in found.items():
        assert value == pytest.approx(theorem_3(depth, 1.0, 1 - 1 / math.pi), rel=0.15)
    assert found[24] > 0.1  # where a plain net has 6e-8


# ---- figures 1 and 2: the gradient of a function of one input on a grid of 256 points in [-2, 2]


def one_input(
    layer: type[Layer], depth: int, seed: int, *, norm: Callable[[], nn.Module]
) -> nn.Module:
    """`depth` rectifier layers of 200 units between one number and one number."""
    width, generator = 200, torch.Generator().manual_seed(seed)
    first, head = nn.Linear(1, width), nn.Linear(width, 1)
    nn.init.normal_(first.weight, std=2**0.5, generator=generator)
    nn.init.normal_(first.bias, std=2**0.5, generator=generator)
    nn.init.normal_(head.weight, std=width**-0.5, generator=generator)
    blocks = [layer(norm(), nn.ReLU(), generator, width) for _ in range(depth - 1)]
    return nn.Sequential(first, *blocks, nn.ReLU(), head)


def on_the_grid(
    layer: type[Layer], depth: int, *, norm: Callable[[], nn.Module], seeds: int
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


ARMS: dict[str, tuple[type[Layer], Callable[[], nn.Module]]] = {
    "plain": (Layer, nn.Identity),
    "plain, batch norm": (Layer, lambda: nn.BatchNorm1d(200)),
    "residual, batch norm": (Residual, lambda: nn.BatchNorm1d(200)),
}


@cache
def arm_on_the_grid(arm: str, depth: int) -> list[Shattering]:
    layer, norm = ARMS[arm]
    return on_the_grid(layer, depth, norm=norm, seeds=2)


def neighbours_of(arm: str, depth: int) -> list[float]:
    return [one.correlation[1] for one in arm_on_the_grid(arm, depth)]


def test_behind_batch_norms_plain_nets_whiten_with_depth_and_residual_nets_less() -> None:
    """Figures 1 and 2a, b: one statistic, the same depths, three kinds of network.

    Measured on 6 networks of each kind, the mean of the autocorrelation of neighbours on the line
    (brown noise 0.98, white 0 +- 0.06) and of the whiteness over all lags:

        layers                      1           10           24           50
        plain                  0.98 -0.03   0.97 0.15    0.88 0.34    0.79 0.58
        plain, batch norm      0.98 -0.03   0.50 1.00    0.00 1.00   -0.02 1.00
        residual, batch norm   0.98 -0.03   0.89 0.66    0.81 0.84    0.68 0.95

    With batch norms the plain network has lost its neighbours by 24 layers, the residual one has
    them at 50. Over all lags the residual network is nearly white by then as well: what it keeps is
    the likeness of near points. And it is the batch norms that shatter the plain network's
    gradients; without them it whitens slowly, and no statement about shortcuts follows from it.
    """
    assert all(min(neighbours_of(arm, 1)) > 0.95 for arm in ARMS)
    assert max(neighbours_of("plain, batch norm", 10)) < min(
        neighbours_of("residual, batch norm", 10)
    )
    # White noise, by three of its standard deviations: 256 points have 0 +- 1/16.
    assert all(abs(value) < 3 / 16 for value in neighbours_of("plain, batch norm", 24))
    assert min(neighbours_of("residual, batch norm", 24)) > 0.6
    assert min(neighbours_of("residual, batch norm", 50)) > 0.4
    assert statistics.fmean(neighbours_of("plain", 24)) > 0.6
    assert whiteness(arm_on_the_grid("plain", 24)) < 0.8
    assert whiteness(arm_on_the_grid("plain, batch norm", 24)) == pytest.approx(1.0, abs=0.05)


def test_small_branches_keep_the_gradients_of_50_layers_brown() -> None:
    """Figure 2c: with b = 0.1 even the 50-layer resnet resembles brown noise."""

    class Scaled(Residual):
        beta = 0.1

    found = on_the_grid(Scaled, 50, norm=Normalise, seeds=2)
    assert neighbours(found) > 0.93
    assert whiteness(found) < 0.5
