"""What the literature says of Jacobians: each statement with its number and source."""

from __future__ import annotations

import itertools
import statistics

import pytest
import torch
from torch import Tensor, nn

from leadline.measure.jacobians.jacobian import jacobian_matrix, jacobian_spectrum
from leadline.measure.jacobians.jacobian_chain import jacobian_chain

WIDTH = 100


def linear(width: int, weight: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(width, width, bias=False)
    if weight is not None:
        with torch.no_grad():
            layer.weight.copy_(weight)
    return layer


def deep_linear(depth: int, *, orthogonal: bool, seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers = [linear(WIDTH) for _ in range(depth)]
    for layer in layers:
        if orthogonal:
            nn.init.orthogonal_(layer.weight, generator=generator)
        else:
            nn.init.normal_(layer.weight, std=WIDTH**-0.5, generator=generator)
    return nn.Sequential(*layers)


def test_ten_layers_at_nine_tenths_each_pass_0_349_of_the_gradient() -> None:
    """0.9 ** 10 = 0.349: the usual first example of a vanishing gradient."""
    model = nn.Sequential(*[linear(3, 0.9 * torch.eye(3)) for _ in range(10)])
    chain = jacobian_chain(model, torch.ones(1, 3))
    assert chain.profile.column("gradient")[0] == pytest.approx(0.349, abs=5e-4)
    assert chain.profile.column("gradient")[0] == pytest.approx(0.9**10, rel=1e-5)
    assert chain.whole.singular_values[0] == pytest.approx([0.9**10] * 3, rel=1e-5)


@pytest.mark.parametrize("depth", [1, 5, 50])
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.2])
def test_a_linear_chain_passes_the_factor_to_the_power_of_its_depth(
    factor: float, depth: int
) -> None:
    """a^L, for a number and for a times an orthogonal matrix (Goodfellow et al. 2016, 8.2.5)."""
    number = nn.Sequential(*[linear(1, torch.tensor([[factor]])) for _ in range(depth)])
    found = jacobian_matrix(number, torch.ones(1, 1), double=True)
    assert found.item() == pytest.approx(float(torch.tensor(factor)) ** depth, rel=1e-6)
    model = deep_linear(depth, orthogonal=True, seed=depth)
    for layer in model:
        layer.weight.data.mul_(factor)
    values = jacobian_spectrum(model, torch.ones(1, WIDTH), double=True).singular_values[0]
    assert values == pytest.approx([factor**depth] * WIDTH, rel=1e-4)


def test_the_slope_of_a_sigmoid_is_at_most_a_quarter() -> None:
    """sigma'(x) <= 0.25, reached at 0."""
    points = torch.linspace(-10, 10, 201)[None]
    slopes = jacobian_matrix(nn.Sigmoid(), points)[0].diagonal()
    assert slopes.max().item() == pytest.approx(0.25, rel=1e-6)
    assert slopes.argmax().item() == 100  # at x = 0


@pytest.mark.parametrize("seed", range(5))
def test_ten_sigmoid_layers_pass_at_most_a_quarter_to_the_tenth(seed: int) -> None:
    """<= 0.25 ** 10 = 9.5e-7 of the gradient with weights that are isometries (Hochreiter 1991)."""
    layers = deep_linear(10, orthogonal=True, seed=seed)
    model = nn.Sequential(*itertools.chain(*((layer, nn.Sigmoid()) for layer in layers)))
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(seed))
    found = jacobian_spectrum(model, x, double=True)
    assert all(0 < row[0] <= 0.25**10 for row in found.singular_values)


def test_a_residual_block_has_the_identity_plus_its_branch_for_a_jacobian() -> None:
    """y = x + F(x): J = I + dF/dx (He et al. 2016, Identity Mappings, equation 5)."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.branch(x)

    torch.manual_seed(0)
    block, x = Block(), torch.randn(4, 8)
    whole = jacobian_matrix(block, x, examples=4, double=True)
    branch = jacobian_matrix(block.branch, x, examples=4, double=True)
    assert torch.equal(whole, torch.eye(8, dtype=torch.float64) + branch)


@pytest.mark.parametrize("depth", [1, 10, 100])
def test_orthogonal_weights_keep_every_singular_value_of_a_linear_net_at_1(depth: int) -> None:
    """Saxe et al. 2013 (arXiv:1312.6120), section 3: dynamical isometry at any depth."""
    model = deep_linear(depth, orthogonal=True, seed=depth)
    found = jacobian_spectrum(model, torch.ones(1, WIDTH), double=True)
    assert found.singular_values[0] == pytest.approx([1.0] * WIDTH, rel=1e-4)
    assert found.distance[0] < 1e-4
    assert found.condition[0] == pytest.approx(1.0, rel=1e-4)


def test_gaussian_weights_spread_the_squared_singular_values_with_variance_equal_to_depth() -> None:
    """Pennington et al. 2017 (arXiv:1711.04735): of linear Gaussian nets, mean 1 and variance L.

    That is the limit of infinite width; at width n there are terms of the order L^2 / n more.
    """
    variances = {}
    for depth in (1, 2, 4, 8):
        means, moments = [], []
        for seed in range(8):
            model = deep_linear(depth, orthogonal=False, seed=1000 * depth + seed)
            found = jacobian_spectrum(model, torch.ones(1, WIDTH), double=True)
            means.append(found.mean_squared[0])
            moments.append(found.variance_squared[0])
        assert statistics.fmean(means) == pytest.approx(1.0, abs=0.1)
        variances[depth] = statistics.fmean(moments)
    for depth, variance in variances.items():
        assert variance == pytest.approx(depth, rel=0.25)
    growth = (variances[8] - variances[1]) / 7
    assert growth == pytest.approx(1.0, rel=0.3)


def test_the_condition_number_of_a_gaussian_net_explodes_and_an_orthogonal_one_does_not() -> None:
    """Saxe et al. 2013: most directions of a deep Gaussian net are lost, whatever its scale."""
    gaussian = [
        jacobian_spectrum(
            deep_linear(depth, orthogonal=False, seed=depth), torch.ones(1, WIDTH), double=True
        ).condition[0]
        for depth in (1, 4, 16)
    ]
    assert gaussian[0] * 1e3 < gaussian[1]
    assert gaussian[1] * 1e3 < gaussian[2]


def test_a_relu_net_cannot_be_an_isometry() -> None:
    """Pennington et al. 2017: half of the directions are lost at each ReLU, also orthogonally.

    With weights of gain sqrt(2) the mean of s^2 stays 1, half of the values are 0.
    """
    torch.manual_seed(0)
    layer = nn.init.orthogonal_(linear(WIDTH).weight, 2**0.5)
    model = nn.Sequential(linear(WIDTH, layer.detach()), nn.ReLU())
    found = jacobian_spectrum(model, torch.randn(16, WIDTH), examples=16)
    assert statistics.fmean(found.mean_squared) == pytest.approx(1.0, rel=0.05)
    lost = [sum(value < 1e-6 for value in row) / WIDTH for row in found.singular_values]
    assert statistics.fmean(lost) == pytest.approx(0.5, abs=0.03)
    assert statistics.fmean(found.distance) == pytest.approx(1.0, rel=0.05)
