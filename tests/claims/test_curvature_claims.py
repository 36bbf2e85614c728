"""What the literature says of curvature, each with its number and source."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.data.examples import ArrayExamples
from leadline.data.load import load_dataset
from leadline.data.options import DataOptions
from leadline.measure.curvature.critical_point import critical_point
from leadline.measure.curvature.curvature import curvature_matrix
from leadline.measure.curvature.edge_of_stability import sharpness
from leadline.measure.curvature.eigenvalues import eigenvalues
from leadline.measure.curvature.spectral_density import spectral_density


class Point(nn.Module):
    """A quadratic form of a point in the plane or in space."""

    def __init__(self, a: Tensor, start: Tensor) -> None:
        super().__init__()
        self.a, self.point = a.double(), nn.Parameter(start.double())

    def forward(self, x: Tensor) -> Tensor:
        return self.point @ self.a @ self.point / 2 * x.mean()


def value(outputs: Any, targets: Any) -> Tensor:
    return outputs


ONE = torch.ones(1, dtype=torch.float64)


def test_x2_minus_y2_is_a_saddle_whose_way_down_is_y() -> None:
    """Goodfellow et al. 2016, section 4.3: x^2 - y^2 has eigenvalues 2 and -2 at the origin."""
    found = critical_point(
        Point(torch.diag(torch.tensor([2.0, -2.0])), torch.zeros(2)), ONE, loss=value
    )
    assert found.kind == "saddle"
    assert (found.smallest, found.largest) == pytest.approx((-2, 2), rel=1e-6)
    assert found.descent is not None
    assert found.descent.abs().tolist() == pytest.approx([0, 1], abs=1e-6)


def test_a_quadratic_loss_has_the_eigenvalues_of_its_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    a = half + half.T
    exact = sorted(torch.linalg.eigvalsh(a).tolist(), key=abs, reverse=True)
    found = eigenvalues(Point(a, torch.ones(30)), ONE, loss=value, count=30)
    assert found.values == pytest.approx(exact, rel=1e-4)


def test_at_a_strict_minimum_every_eigenvalue_is_positive() -> None:
    """The second-order condition, at the exact solution of a ridge regression."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    targets = torch.randn(40, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(5, 1, bias=False).double()
    ridge = inputs.T @ inputs / 40 + 0.1 * torch.eye(5)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.solve(ridge, inputs.T @ targets / 40).T)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        error = functional.mse_loss(outputs, targets)
        return error / 2 + 0.05 * model.weight.square().sum()

    found = critical_point(model, (inputs, targets), loss=loss)
    assert found.kind == "minimum"
    exact = torch.linalg.eigvalsh(ridge)
    assert (found.smallest, found.largest) == pytest.approx(
        (float(exact[0]), float(exact[-1])), rel=1e-4
    )
    every = eigenvalues(model, (inputs, targets), loss=loss, count=5)
    assert min(every.values) > 0


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.01, 1.5])
def test_gradient_descent_on_a_quadratic_diverges_exactly_above_two_over_sharpness(
    factor: float,
) -> None:
    """LeCun et al. 1998, Efficient BackProp, section 5; Cohen et al. 2021, section 2."""
    a = torch.diag(torch.tensor([8.0, 1.0, 0.1]))
    model = Point(a, torch.ones(3))
    lr = factor * 2 / sharpness(model, ONE, loss=value, lr=1.0).value
    stable = sharpness(model, ONE, loss=value, lr=lr).stable
    losses = []
    for _ in range(800):
        loss = model(ONE)
        (slope,) = torch.autograd.grad(loss, [model.point])
        with torch.no_grad():
            model.point -= lr * slope
        losses.append(float(loss.detach()))
    assert stable == (factor < 1)
    assert (losses[-1] < losses[0]) == stable
    assert all((b < a) == stable for a, b in pairwise(losses[100::100]))


def test_full_batch_gradient_descent_sharpens_up_to_the_edge_of_stability() -> None:
    """Cohen et al. 2021 (arXiv:2103.00065), figure 1: the sharpness rises to 2 / lr and hovers
    just above it, for a tanh network on full batches, whatever the step."""
    for lr in (0.1, 0.2):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(60, 8, generator=generator, dtype=torch.float64)
        targets = torch.sign(torch.randn(60, 1, generator=generator, dtype=torch.float64))
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        model.append(nn.Linear(32, 1)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        ratios = []
        for step in range(1501):
            if step % 250 == 0:
                found = sharpness(model, (inputs, targets), loss=functional.mse_loss, lr=lr)
                ratios.append(found.ratio)
            optimizer.zero_grad()
            functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
        assert ratios[0] < 0.5  # it begins well below the edge
        assert max(ratios) > 0.9
        assert all(ratio < 1.25 for ratio in ratios)


def linear_chain(layers: int, *, width: int = 4) -> nn.Module:
    chain = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers))).double()
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.zero_()
    return chain


def regression() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    return inputs, inputs @ torch.randn(4, 4, generator=generator, dtype=torch.float64)


def test_the_origin_of_a_linear_network_with_one_hidden_layer_is_a_strict_saddle() -> None:
    """Baldi and Hornik 1989; Kawaguchi 2016 (arXiv:1605.07110), theorem 2.3 (iv): with one hidden
    layer every saddle has a negative eigenvalue. At the origin they are plus and minus the singular
    values of the gradient of the loss by the product of both matrices."""
    inputs, targets = regression()
    found = critical_point(linear_chain(2), (inputs, targets), loss=functional.mse_loss)
    slope = 2 / targets.numel() * targets.T @ inputs
    largest = float(torch.linalg.matrix_norm(slope, 2))
    assert found.gradient_norm == 0
    assert found.kind == "saddle"
    assert (found.smallest, found.largest) == pytest.approx((-largest, largest), rel=1e-4)


@pytest.mark.parametrize("layers", [3, 4])
def test_the_origin_of_a_deeper_linear_network_is_a_saddle_that_the_hessian_cannot_see(
    layers: int,
) -> None:
    """Kawaguchi 2016, corollary 2.4: with more than one hidden layer there are saddles at which the
    Hessian has no negative eigenvalue; at the origin it is zero, yet the loss can fall."""
    model, batch = linear_chain(layers), regression()
    found = critical_point(model, batch, loss=functional.mse_loss)
    assert found.kind == "degenerate"
    assert found.smallest == found.largest == 0
    before = functional.mse_loss(model(batch[0]), batch[1])
    u, _, v = torch.linalg.svd(batch[1].T @ batch[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.outer(v[0], v[0]))
        model[-1].weight.copy_(0.3 * torch.outer(u[:, 0], v[0]))  # type: ignore[index, operator, union-attr]
    assert functional.mse_loss(model(batch[0]), batch[1]) < before


def test_the_critical_points_of_a_linear_autoencoder_are_saddles_but_for_the_lowest() -> None:
    """Baldi and Hornik 1989: with 2 hidden units on 5 inputs they project onto any 2 or fewer
    principal directions, and only the one on the top 2 is no saddle; Dauphin et al. 2014
    (arXiv:1406.2572): the higher the loss, the larger the share of negative eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    inputs = inputs * torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0]).double()
    directions = torch.linalg.eigh(inputs.T @ inputs).eigenvectors.flip(1).T
    losses, shares = [], []
    for chosen in (c for size in range(3) for c in combinations(range(5), size)):
        model = nn.Sequential(nn.Linear(5, 2, bias=False), nn.Linear(2, 5, bias=False)).double()
        projection = torch.zeros(2, 5, dtype=torch.float64)
        projection[: len(chosen)] = directions[list(chosen)]
        with torch.no_grad():
            model[0].weight.copy_(projection)
            model[1].weight.copy_(projection.T)
        found = critical_point(model, (inputs, inputs), loss=functional.mse_loss)
        dense = curvature_matrix(model, (inputs, inputs), loss=functional.mse_loss).dense()
        exact = torch.linalg.eigvalsh(dense)
        assert found.kind == ("degenerate" if chosen == (0, 1) else "saddle")
        losses.append(found.loss)
        shares.append(float((exact < -1e-9).double().mean()))
    assert len(losses) == 16
    assert losses[shares.index(0)] == min(losses)
    assert float(torch.corrcoef(torch.tensor([losses, shares]))[0, 1]) > 0.9


def test_nearly_all_eigenvalues_of_a_classifier_lie_at_zero() -> None:
    """Sagun et al. 2017 (arXiv:1706.04454), figures 1 and 2: a bulk at zero and few eigenvalues
    above it. Nine tenths within a twentieth of the largest, on handwritten digits."""
    examples = load_dataset(DataOptions(data="digits")).train
    assert isinstance(examples, ArrayExamples)
    inputs = examples.images[:400].double().flatten(1)
    inputs = (inputs - inputs.mean()) / inputs.std()
    targets = examples.targets[:400]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    batch = inputs, targets
    density = spectral_density(model, batch, loss=functional.cross_entropy, steps=40)
    top = density.range[1]
    within = density.share_below(0.05 * top) - density.share_below(-0.05 * top)
    assert within > 0.9
