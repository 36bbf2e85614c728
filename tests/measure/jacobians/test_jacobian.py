"""Tests of the Jacobian's spectrum: exact against linalg, randomised against exact."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian as dense_jacobian

from leadline.core.errors import MeasurementError, UnknownNameError
from leadline.core.seeds import capture_random_state
from leadline.measure.jacobians.jacobian import jacobian_matrix, jacobian_spectrum


def network(widths: tuple[int, ...] = (30, 40, 20), gain: float = 1.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    model = nn.Sequential(*layers)
    for layer in layers[::2]:
        nn.init.orthogonal_(layer.weight, gain)  # type: ignore[arg-type]
    return model


def diagonal(values: list[float]) -> nn.Linear:
    layer = nn.Linear(len(values), len(values), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor(values)))
    return layer


def test_the_singular_values_are_those_of_the_dense_jacobian() -> None:
    torch.manual_seed(0)
    model, x = network(), torch.randn(3, 30)
    found = jacobian_spectrum(model, x)
    for i, row in enumerate(found.singular_values):
        expected = torch.linalg.svdvals(dense_jacobian(model, x[i : i + 1])[0, :, 0].double())
        assert row == pytest.approx(expected.tolist(), rel=1e-4)
        squares = expected.square()
        assert found.mean_squared[i] == pytest.approx(squares.mean().item(), rel=1e-4)
        assert found.variance_squared[i] == pytest.approx(
            squares.var(correction=0).item(), rel=1e-4
        )
        assert found.condition[i] == pytest.approx((expected[0] / expected[-1]).item(), rel=1e-4)
        assert found.distance[i] == pytest.approx(
            (squares - 1).square().mean().sqrt().item(), rel=1e-4
        )
    assert found.shape == (20, 30)
    assert found.method == "exact" and found.error == (0.0, 0.0, 0.0)


def test_the_matrix_is_the_dense_jacobian() -> None:
    torch.manual_seed(0)
    model, x = network(), torch.randn(2, 30)
    found = jacobian_matrix(model, x, examples=2, double=True)
    assert found.dtype == torch.float64 and not found.requires_grad
    expected = dense_jacobian(model.double(), x[1:].double())[0, :, 0]
    assert torch.allclose(found[1], expected, rtol=1e-10)


def test_the_randomised_values_are_the_leading_exact_ones() -> None:
    torch.manual_seed(0)
    model, x = network((300, 350, 320)), torch.randn(2, 300)
    exact = jacobian_spectrum(model, x)
    found = jacobian_spectrum(model, x, method="randomised", rank=5, power_iterations=10)
    for own, row in zip(exact.singular_values, found.singular_values, strict=True):
        assert row == pytest.approx(own[:5], rel=1e-4)
    assert found.method == "randomised"
    assert all(math.isnan(value) for value in found.condition)
    assert found.mean_squared == pytest.approx(exact.mean_squared, rel=0.05)
    assert found.variance_squared == pytest.approx(exact.variance_squared, rel=0.1)


@pytest.mark.parametrize("power_iterations", [0, 2])
def test_the_error_of_a_randomised_value_is_never_exceeded(power_iterations: int) -> None:
    torch.manual_seed(0)
    model, x = network((90, 100, 80)), torch.randn(4, 90)
    exact = jacobian_spectrum(model, x)
    found = jacobian_spectrum(
        model, x, method="randomised", rank=3, power_iterations=power_iterations
    )
    for own, row, error in zip(
        exact.singular_values, found.singular_values, found.error, strict=True
    ):
        assert error > 0
        nearest = max(min(abs(value - other) for other in own) for value in row)
        assert nearest <= error * row[0] + 1e-5


def test_more_power_iterations_make_the_error_smaller() -> None:
    torch.manual_seed(0)
    model, x = network((90, 100, 80)), torch.randn(1, 90)
    errors = [
        jacobian_spectrum(
            model, x, method="randomised", rank=3, power_iterations=rounds, double=True
        ).error[0]
        for rounds in (0, 4, 16)
    ]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_a_spectrum_that_falls_steeply_is_found_at_once() -> None:
    values = [2.0**-i for i in range(40)]
    found = jacobian_spectrum(
        diagonal(values), torch.ones(1, 40), method="randomised", rank=4, power_iterations=1
    )
    assert found.singular_values[0] == pytest.approx(values[:4], rel=1e-5)
    assert found.error[0] < 1e-5
    assert found.mean_squared[0] == pytest.approx(4 / 3 / 40, rel=1e-4)
    assert found.variance_squared[0] == pytest.approx(16 / 15 / 40 - (4 / 3 / 40) ** 2, rel=1e-4)


def test_auto_writes_out_only_what_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network((30, 20)), torch.randn(1, 30)
    assert jacobian_spectrum(model, x).method == "exact"
    monkeypatch.setattr("leadline.measure.jacobians.jacobian.EXACT_PRODUCTS", 19)
    assert jacobian_spectrum(model, x).method == "randomised"
    assert jacobian_spectrum(model, x, method="exact").method == "exact"


def test_a_direction_that_is_lost_makes_the_condition_infinite() -> None:
    found = jacobian_spectrum(diagonal([2.0, 1.0, 0.0]), torch.ones(1, 3))
    assert found.condition == (math.inf,)
    assert found.singular_values == ((2.0, 1.0, 0.0),)


def test_a_jacobian_of_zeros_has_values_of_zero_by_either_method() -> None:
    for method in ("exact", "randomised"):
        found = jacobian_spectrum(diagonal([0.0, 0.0]), torch.ones(1, 2), method=method)
        assert found.singular_values == ((0.0, 0.0),)
        assert found.error == (0.0,)
        assert found.distance == (1.0,)


def test_the_same_seed_gives_the_same_numbers() -> None:
    torch.manual_seed(0)
    model, x = network((90, 80)), torch.randn(1, 90)
    first, second, other = (
        jacobian_spectrum(model, x, method="randomised", rank=2, power_iterations=0, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first.singular_values == second.singular_values
    assert first.singular_values != other.singular_values


@pytest.mark.parametrize("method", ["exact", "randomised"])
@pytest.mark.parametrize("double", [False, True])
def test_the_model_is_left_as_it_was(method: Any, double: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.ReLU(inplace=True))
    x = torch.randn(3, 4)
    model(x).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    copies = [gradient.clone() for gradient in gradients if gradient is not None]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given, random = x.clone(), capture_random_state()
    jacobian_spectrum(model, x, method=method, rank=2, double=double)
    assert torch.equal(capture_random_state().torch, random.torch)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    found = [parameter.grad for parameter in model.parameters()]
    assert all(one is two for one, two in zip(found, gradients, strict=True))
    assert all(torch.equal(one, two) for one, two in zip(found, copies, strict=True))
    assert model.training and torch.equal(x, given)
    assert not x.requires_grad


class SquareRoot(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank of 1 or more"),
        ({"power_iterations": -1}, "power_iterations=-1"),
    ],
)
def test_arguments_out_of_range_are_described(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        jacobian_spectrum(network(), torch.ones(1, 30), **arguments)


def test_an_unknown_method_gets_did_you_mean() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'randomised'"):
        jacobian_spectrum(network(), torch.ones(1, 30), method="randomized")


@pytest.mark.parametrize("method", ["exact", "randomised"])
def test_an_infinite_derivative_is_described(method: Any) -> None:
    with pytest.raises(MeasurementError, match="a Jacobian of finite numbers"):
        jacobian_spectrum(SquareRoot(), torch.zeros(1, 2), method=method)


def test_bad_input_is_described() -> None:
    with pytest.raises(MeasurementError, match="at least one example"):
        jacobian_spectrum(network(), torch.ones(0, 30))
    with pytest.raises(MeasurementError, match="finite inputs"):
        jacobian_spectrum(network(), torch.full((1, 30), math.nan))
    with pytest.raises(MeasurementError, match=r"in Linear '0'"):
        jacobian_spectrum(network(), torch.ones(1, 31))


def test_frozen_networks_and_those_without_parameters_have_jacobians_too() -> None:
    frozen = diagonal([2.0, 1.0]).requires_grad_(False)
    assert jacobian_spectrum(frozen, torch.ones(1, 2)).singular_values == ((2.0, 1.0),)
    assert jacobian_spectrum(nn.ReLU(), torch.ones(1, 2)).singular_values == ((1.0, 1.0),)


def test_half_precision_is_decomposed_in_single() -> None:
    found = jacobian_spectrum(diagonal([2.0, 1.0]).bfloat16(), torch.ones(1, 2).bfloat16())
    assert found.singular_values == ((2.0, 1.0),)
