"""Tests of Gaussian expectations against adaptive quadrature and closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate
from torch import Tensor

from leadline.measure.signals.gaussian_expectation import (
    derivative,
    gaussian_mean,
    gaussian_pair_mean,
)
from leadline.nn.activations import ACTIVATIONS, make_activation


def density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def on_numbers(function: Callable[[Tensor], Tensor]) -> Callable[[float], float]:
    return lambda x: float(function(torch.tensor(x, dtype=torch.float64)))


@pytest.mark.parametrize("variance", [1e-4, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_mean_square_agrees_with_adaptive_quadrature(activation: str, variance: float) -> None:
    function = make_activation(activation)
    value = on_numbers(function)
    kink = min(6 / variance**0.5, 12.9)  # ReLU6 has one away from 0, which no edge stands on
    edges = sorted({-13, -1, -0.01, 0, 0.01, 1, 13, *([kink] if activation == "relu6" else [])})
    expected = sum(
        integrate.quad(
            lambda z: value(z * variance**0.5) ** 2 * density(z), low, high, epsabs=0, epsrel=1e-11
        )[0]
        for low, high in itertools.pairwise(edges)
    )
    assert float(gaussian_mean(lambda x: function(x) ** 2, variance)) == pytest.approx(
        expected, rel=1e-3 if activation == "relu6" else 1e-10
    )


@pytest.mark.parametrize("correlation", [-0.6, 0.3, 0.95])
@pytest.mark.parametrize("activation", ["tanh", "gelu", "sigmoid"])
def test_the_pair_mean_agrees_with_quadrature_in_the_plane(
    activation: str, correlation: float
) -> None:
    """u = a, v = c a + sqrt(1 - c^2) b with independent a and b, by the trapezoidal rule."""
    function = make_activation(activation)
    places = torch.linspace(-10, 10, 801, dtype=torch.float64)
    weights = torch.exp(-places.square() / 2)
    weights = weights / weights.sum()
    first = math.sqrt(1.7) * places[:, None]
    second = correlation * first + math.sqrt(1.7 * (1 - correlation**2)) * places
    expected = float(weights @ (function(first) * function(second)) @ weights)
    received = gaussian_pair_mean(function, variance=1.7, correlation=correlation)
    assert received == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("correlation", [-1.0, -0.5, 0.0, 0.3, 0.99, 1 - 1e-9, 1.0])
def test_the_pair_mean_of_relu_is_the_arc_cosine_kernel(correlation: float) -> None:
    """Cho & Saul 2009: q (sin t + (pi - t) cos t) / (2 pi), and (pi - t) / (2 pi) of its slope."""
    angle = math.acos(correlation)
    kernel = (math.sin(angle) + (math.pi - angle) * correlation) / (2 * math.pi)
    received = gaussian_pair_mean(torch.relu, variance=3.0, correlation=correlation)
    assert received == pytest.approx(3 * kernel, rel=1e-9, abs=1e-12)
    slope = gaussian_pair_mean(derivative(torch.relu), variance=3.0, correlation=correlation)
    assert slope == pytest.approx((math.pi - angle) / (2 * math.pi), rel=1e-9, abs=1e-12)


def test_the_pair_mean_of_the_error_function_is_the_arc_sine_kernel() -> None:
    """Williams 1998: E[erf(u) erf(v)] = 2 / pi asin(2 q c / (1 + 2 q))."""
    expected = 2 / math.pi * math.asin(2 * 4 * 0.7 / (1 + 2 * 4))
    received = gaussian_pair_mean(torch.erf, variance=4.0, correlation=0.7)
    assert received == pytest.approx(expected, rel=1e-9)


def test_a_vector_of_variances_gives_a_vector_of_means() -> None:
    means = gaussian_mean(torch.square, torch.tensor([1.0, 2.5]))
    torch.testing.assert_close(means, torch.tensor([1.0, 2.5], dtype=torch.float64))


def test_the_derivative_is_that_of_the_formula_and_leaves_the_grad_mode_alone() -> None:
    places = torch.linspace(-3, 3, 7, dtype=torch.float64)
    with torch.no_grad():
        slopes = derivative(torch.tanh)(places)
    torch.testing.assert_close(slopes, 1 - torch.tanh(places).square())
    assert not slopes.requires_grad


def test_the_derivative_of_a_constant_is_zero() -> None:
    assert not derivative(lambda x: torch.ones(3))(torch.zeros(3)).any()
