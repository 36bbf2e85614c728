"""Tests of Gauss-Newton and Fisher matrices: against sums over examples, outputs and targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.curvature.curvature import curvature_matrix

LOSSES: dict[str, Any] = {
    "cross entropy": functional.cross_entropy,
    "squared error": functional.mse_loss,
    "binary cross entropy": functional.binary_cross_entropy_with_logits,
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def data(loss: str = "cross entropy", examples: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(examples, 4, generator=generator, dtype=torch.float64)
    if loss == "cross entropy":
        return inputs, torch.randint(0, 3, (examples,), generator=generator)
    if loss == "squared error":
        return inputs, torch.randn(examples, 3, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 2, (examples, 3), generator=generator).double()


def flat(gradients: dict[str, Tensor], *, keep: int) -> Tensor:
    return torch.cat([g.flatten(keep) for g in gradients.values()], dim=keep)


def jacobian(model: nn.Module, inputs: Tensor) -> Tensor:
    """d outputs / d parameters of each example: N, K, P."""
    named = dict(model.named_parameters())
    return flat(jacrev(lambda w: functional_call(model, w, (inputs,)))(named), keep=2).detach()


def scores(model: nn.Module, inputs: Tensor, targets: Tensor, loss: Any) -> Tensor:
    """The gradient of each example's own loss: N, P."""
    named = {name: p.detach() for name, p in model.named_parameters()}

    def single(weights: Any, x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (x[None],)), y[None])

    return flat(vmap(grad(single), in_dims=(None, 0, 0))(named, inputs, targets), keep=1)


def second_derivative(function: Any, z: Tensor) -> Tensor:
    """The Hessian of a function of the outputs as a matrix."""
    return jacrev(jacrev(function))(z).reshape(z.numel(), z.numel())


def found(model: nn.Module, batch: Any, loss: Any, matrix: Any, **options: Any) -> Tensor:
    return curvature_matrix(model, batch, loss=loss, matrix=matrix, **options).dense()


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return bool((a - b).norm() <= tolerance * b.norm()) and float(b.norm()) > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_gauss_newton_is_jacobian_curvature_jacobian(name: str) -> None:
    model, (inputs, targets) = network(), data(name)
    j = jacobian(model, inputs).flatten(0, 1)
    c = second_derivative(lambda z: LOSSES[name](z, targets), model(inputs).detach())
    expected = j.T @ c @ j
    assert close(found(model, (inputs, targets), LOSSES[name], "gauss_newton"), expected)


def test_fisher_of_cross_entropy_is_the_expectation_over_the_models_own_classes() -> None:
    model, (inputs, _) = network(), data()
    chances = model(inputs).softmax(dim=1).detach()
    expected = torch.zeros(())
    for label in range(3):
        targets = torch.full((len(inputs),), label)
        g = scores(model, inputs, targets, functional.cross_entropy)
        expected = expected + torch.einsum("n,np,nq->pq", chances[:, label], g, g) / len(inputs)
    batch = (inputs, data()[1])
    assert close(found(model, batch, functional.cross_entropy, "fisher"), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_fisher_and_gauss_newton_are_the_same(name: str) -> None:
    model, batch = network(), data(name)
    newton = found(model, batch, LOSSES[name], "gauss_newton")
    assert close(found(model, batch, LOSSES[name], "fisher"), newton)


@pytest.mark.parametrize("name", LOSSES)
def test_drawn_targets_come_near_the_fisher_matrix_as_they_grow_in_number(name: str) -> None:
    model, batch = network(), data(name)
    exact = found(model, batch, LOSSES[name], "fisher")
    errors = [
        float((found(model, batch, LOSSES[name], "monte_carlo_fisher", samples=n) - exact).norm())
        for n in (10, 4_000)
    ]
    assert errors[1] < 0.06 * float(exact.norm())  # 1 / square root of 4,000 is 0.016
    assert errors[1] < errors[0] / 5  # the rate says 20


def test_one_drawn_target_an_example_gives_a_matrix_of_that_rank() -> None:
    drawn = found(network(), data(), functional.cross_entropy, "monte_carlo_fisher", seed=3)
    values = torch.linalg.eigvalsh(drawn)
    assert int((values > 1e-12).sum()) <= 6
    assert float(values.min()) > -1e-12


def test_each_batch_of_several_draws_targets_of_its_own() -> None:
    def product(batch: Any) -> Tensor:
        matrix = curvature_matrix(
            network(), batch, loss=functional.cross_entropy, matrix="monte_carlo_fisher"
        )
        return matrix @ torch.ones(matrix.dimension, dtype=torch.float64)

    assert not close(product([data(), data()]), product(data()), tolerance=1e-3)
    assert torch.equal(product([data(), data()]), product([data(), data()]))


def test_empirical_fisher_is_the_mean_of_the_examples_outer_products() -> None:
    model, (inputs, targets) = network(), data()
    g = scores(model, inputs, targets, functional.cross_entropy)
    batch = (inputs, targets)
    assert close(
        found(model, batch, functional.cross_entropy, "empirical_fisher"), g.T @ g / len(g)
    )


def test_each_pixel_counts_as_an_example() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(2, 3, 1).double()
    inputs = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    targets = torch.randint(0, 3, (2, 3, 3))
    pixels = inputs.movedim(1, -1).reshape(-1, 2, 1, 1), targets.reshape(-1, 1, 1)
    for matrix in ("fisher", "empirical_fisher"):
        whole = found(model, (inputs, targets), functional.cross_entropy, matrix)
        assert close(found(model, pixels, functional.cross_entropy, matrix), whole)


def test_outputs_of_one_number_an_example_may_have_no_axis_for_it() -> None:
    torch.manual_seed(0)
    wide = nn.Linear(4, 1).double()
    inputs, targets = data("squared error")
    squeezed = nn.Sequential(wide, nn.Flatten(0))
    for matrix in ("fisher", "empirical_fisher"):
        with_axis = found(wide, (inputs, targets[:, :1]), functional.mse_loss, matrix)
        without = found(squeezed, (inputs, targets[:, 0]), functional.mse_loss, matrix)
        assert close(without, with_axis)


def test_on_a_linear_model_gauss_newton_is_the_hessian() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    expected = found(model, data(), functional.cross_entropy, "hessian")
    assert close(found(model, data(), functional.cross_entropy, "gauss_newton"), expected)


def test_an_output_computed_from_another_is_not_counted_twice() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            features = self.first(x)
            return {"features": features, "out": self.second(torch.tanh(features))}

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        extra = outputs["features"].square().mean()
        return functional.cross_entropy(outputs["out"], targets) + extra

    torch.manual_seed(0)
    model = Two().double()
    inputs, targets = data()
    named = dict(model.named_parameters())

    def joined(weights: Any) -> Tensor:
        return torch.cat(list(functional_call(model, weights, (inputs,)).values()), dim=1)

    j = flat(jacrev(joined)(named), keep=2).flatten(0, 1).detach()
    z = joined(named).detach()
    c = second_derivative(lambda z: loss({"features": z[:, :4], "out": z[:, 4:]}, targets), z)
    expected = j.T @ c @ j
    assert close(found(model, (inputs, targets), loss, "gauss_newton"), expected)


@pytest.mark.parametrize(
    ("matrix", "loss", "message"),
    [
        ("fisher", functional.smooth_l1_loss, r"SmoothL1[\s\S]*matrix='gauss_newton'"),
        ("fisher", nn.CrossEntropyLoss(label_smoothing=0.1), "without label smoothing"),
        ("empirical_fisher", nn.CrossEntropyLoss(reduction="sum"), "mean over all terms"),
        (
            "monte_carlo_fisher",
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0]).double()),
            "use reduction='mean' without weights",
        ),
        ("empirical_fisher", nn.MSELoss(reduction="sum"), "squared error as the mean"),
        ("gauss_newton", lambda o, t: o.detach().mean(), "without a graph"),
    ],
)
def test_losses_that_do_not_fit_are_explained(matrix: Any, loss: Any, message: str) -> None:
    batch = data("squared error" if "mse" in str(loss).lower() else "cross entropy")
    if loss is functional.smooth_l1_loss:
        batch = data("squared error")
    with pytest.raises(MeasurementError, match=message):
        curvature_matrix(network(), batch, loss=loss, matrix=matrix)


def test_a_model_whose_own_loss_passes_by_its_output_is_explained() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return {"logits": self.net(x), "loss": self.net(x).square().mean()}

    with pytest.raises(MeasurementError, match="computes from its main output"):
        curvature_matrix(Own().double(), {"x": data()[0]}, matrix="gauss_newton")
