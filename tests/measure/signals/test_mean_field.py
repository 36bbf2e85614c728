"""Tests of the mean-field theory against closed forms, iteration and wide random networks."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import optimize
from torch import nn

from leadline.core.errors import ConfigError, MeasurementError, UnknownNameError
from leadline.measure.signals.mean_field import MeanField, edge_of_chaos, mean_field_of
from leadline.nn.activations import ACTIVATIONS
from leadline.nn.initialisation import initialise

ITERATED = [
    ("tanh", 1.69, 0.09),
    ("tanh", 6.25, 0.09),
    ("tanh", 1.69, 0.0),
    ("sigmoid", 1.0, 0.0),
    ("relu", 1.0, 0.1),
    ("selu", 1.0, 0.0),
    ("gelu", 1.5, 0.2),
    ("silu", 1.0, 0.3),
]


def test_a_linear_network_multiplies_the_variance_in_each_layer() -> None:
    field = MeanField(activation=nn.Identity(), weight_variance=1.5, bias_variance=0.25)
    assert field.variance_map(2.0) == pytest.approx(3.25)
    assert field.correlation_map(0.4, variance=2.0) == pytest.approx((1.5 * 0.8 + 0.25) / 3.25)
    assert field.slope(2.0) == pytest.approx(1.5)


@pytest.mark.parametrize(("activation", "weight", "bias"), ITERATED)
def test_the_fixed_point_is_where_iterating_the_maps_ends(
    activation: str, weight: float, bias: float
) -> None:
    field = MeanField(activation=activation, weight_variance=weight, bias_variance=bias)
    point = field.fixed_point()
    variance = 1.0
    for _ in range(300):
        variance = field.variance_map(variance)
    assert point.variance == pytest.approx(variance, rel=1e-6)
    correlation = 0.5
    for _ in range(400):
        correlation = field.correlation_map(correlation, variance=variance)
    assert point.correlation == pytest.approx(correlation, abs=1e-4)


@pytest.mark.parametrize(("activation", "weight", "bias"), ITERATED)
def test_the_slope_is_that_of_the_correlation_map(
    activation: str, weight: float, bias: float
) -> None:
    field = MeanField(activation=activation, weight_variance=weight, bias_variance=bias)
    point = field.fixed_point()
    step = 1e-4
    below = field.correlation_map(0.5 - step, variance=point.variance)
    above = field.correlation_map(0.5 + step, variance=point.variance)
    slope = field.slope(point.variance, correlation=0.5)
    assert slope == pytest.approx((above - below) / (2 * step), rel=1e-5)


@pytest.mark.parametrize(("activation", "weight", "bias"), ITERATED)
def test_the_depth_scales_are_the_rates_at_which_the_maps_converge(
    activation: str, weight: float, bias: float
) -> None:
    field = MeanField(activation=activation, weight_variance=weight, bias_variance=bias)
    point = field.fixed_point()
    start = point.variance * (1 + 1e-4)
    rate = (field.variance_map(start) - point.variance) / (start - point.variance)
    assert point.variance_depth == pytest.approx(-1 / math.log(rate), rel=1e-3)
    assert point.gradient_depth == pytest.approx(1 / abs(math.log(point.slope)))
    if point.correlation == 1.0:
        assert point.correlation_depth == pytest.approx(point.gradient_depth)


def test_a_variance_that_dies_or_grows_for_ever_is_said() -> None:
    small = MeanField(activation="tanh", weight_variance=0.5).fixed_point()
    assert small.variance == 0
    assert math.isnan(small.correlation)  # near 0 it is linear: every cosine stays
    assert small.slope == pytest.approx(0.5)
    large = MeanField(activation="relu", weight_variance=3.0).fixed_point()
    assert large.variance == math.inf
    assert large.slope == pytest.approx(1.5)
    assert large.phase == "chaotic"


def test_an_unstable_fixed_point_is_left_in_the_direction_of_the_start() -> None:
    """GELU with He's gain: 1 is a fixed point, but a smaller signal dies and a larger one grows."""
    field = mean_field_of("he", activation="gelu")
    assert field.fixed_point(start=1.0).variance == 1.0
    assert field.fixed_point(start=0.99).variance == 0.0
    assert field.fixed_point(start=1.01).variance == math.inf


@pytest.mark.parametrize("variance", [0.1, 1.0, 4.0])
def test_the_critical_line_agrees_with_a_root_finder(variance: float) -> None:
    field = edge_of_chaos("tanh", variance=variance)
    assert field.variance_map(variance) == pytest.approx(variance)
    root = optimize.brentq(
        lambda weight: MeanField(activation="tanh", weight_variance=weight).slope(variance) - 1,
        1e-3,
        100,
    )
    assert field.weight_variance == pytest.approx(root)


def test_an_activation_that_cannot_be_critical_is_said() -> None:
    with pytest.raises(MeasurementError, match="sigmoid, whose biases would need the variance -"):
        edge_of_chaos("sigmoid")


def test_the_profile_of_the_theory_counts_from_the_first_layer() -> None:
    field = mean_field_of("xavier", activation="relu")
    profile = field.propagate(4, variance=8.0, correlation=0.2)
    assert profile.layers == ("layer 1", "layer 2", "layer 3", "layer 4")
    assert profile.column("variance") == pytest.approx((8.0, 4.0, 2.0, 1.0))
    assert profile.column("gradient") == pytest.approx((1 / 8, 1 / 4, 1 / 2, 1.0))
    assert profile.column("correlation")[0] == 0.2
    assert list(profile.column("correlation")) == sorted(profile.column("correlation"))


@pytest.mark.parametrize("shape", [(300, 300), (400, 100), (100, 400)])
@pytest.mark.parametrize("scheme", ["xavier", "he", "lecun", "orthogonal", "default"])
def test_the_variances_of_a_scheme_are_those_of_the_weights_it_draws(
    scheme: str, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(*shape)
    initialise(layer, scheme=scheme, activation="relu")
    field = mean_field_of(scheme, activation="relu", fan_in=shape[0], fan_out=shape[1])
    weight, bias = layer.weight.detach(), layer.bias.detach()
    error = 5 * (2 / weight.numel()) ** 0.5
    assert shape[0] * weight.square().mean().item() == pytest.approx(
        field.weight_variance, rel=error
    )
    assert bias.square().mean().item() == pytest.approx(
        field.bias_variance, rel=5 * (0.8 / len(bias)) ** 0.5
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_theory_is_right_about_one_wide_layer(activation: str) -> None:
    torch.manual_seed(0)
    width, function = 4000, ACTIVATIONS[activation]()
    field = MeanField(activation=activation, weight_variance=1.3, bias_variance=0.2)
    first = torch.randn(2, width)  # what enters the activation: q = 1, c = 0
    second = torch.randn(width, width) * (1.3 / width) ** 0.5
    sums = function(first) @ second + torch.randn(width) * 0.2**0.5
    variance = field.variance_map(1.0)
    error = 5 * (8 / width) ** 0.5  # relative; 8 bounds the kurtosis of these activations
    assert sums.square().mean().item() == pytest.approx(variance, rel=error)
    cosine = nn.functional.cosine_similarity(sums[0], sums[1], dim=0).item()
    assert cosine == pytest.approx(field.correlation_map(0.0, variance=1.0), abs=error)


def test_what_cannot_be_asked_is_said() -> None:
    with pytest.raises(ConfigError, match="weight_variance"):
        MeanField(activation="relu", weight_variance=-1.0)
    with pytest.raises(UnknownNameError, match="did you mean"):
        MeanField(activation="rellu", weight_variance=1.0)
    with pytest.raises(UnknownNameError, match="initialisation with a mean-field theory"):
        mean_field_of("fixup", activation="relu")
    with pytest.raises(MeasurementError, match="one layer or more"):
        mean_field_of("he", activation="relu").propagate(0)
    with pytest.raises(MeasurementError, match="scale the inputs"):
        mean_field_of("he", activation="relu").fixed_point(start=0.0)
