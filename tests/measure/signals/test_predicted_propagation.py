"""Tests of theory against measurement: every initialisation, activation and norm that is offered.

How far chance takes a layer of N units from the theory is known. Given what enters it, its sums
are independent Gaussians, so that the mean of f^2 over its units has the relative variance k / N,
k = E[f^4] / E[f^2]^2 - 1 (5 for ReLU). The next layers pass a deviation on times s, the slope of
log V by log q: v' = s^2 v + k / N. Orthogonal weights deviate less. A tolerance is five such
standard deviations, of one layer and of all thirty.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.signals.gaussian_expectation import Function, gaussian_mean
from leadline.measure.signals.mean_field import MeanField, mean_field_of
from leadline.measure.signals.predicted_propagation import predicted_propagation
from leadline.measure.signals.propagation import output_statistics, propagation_profile
from leadline.nn.activations import ACTIVATIONS, make_activation
from leadline.nn.initialisation import SCHEMES, initialise
from leadline.nn.norms import FEATURE_NORMS, make_feature_norm

WIDTH, DEPTH = 256, 30
# two need residual paths; of a deviation of 0.02 nothing is left after thirty layers of this width
DENSE_SCHEMES = sorted(SCHEMES.keys() - {"fixup", "zero_last", "trunc_normal"})


def dense_network(
    linears: list[nn.Linear], *, activation: str, norm: str, width: int = WIDTH
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for linear in linears:
        layers += [linear, make_feature_norm(norm, width), make_activation(activation)]
    return nn.Sequential(*layers)


def linear_layers(*, scheme: str, activation: str, depth: int, width: int) -> list[nn.Linear]:
    layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
    initialise(layers, scheme=scheme, activation=activation)
    return list(layers)  # type: ignore[arg-type]


def second_moments(model: nn.Sequential, inputs: Tensor) -> tuple[float, ...]:
    """Of every layer's outputs, as `signal_propagation` has them but for its hooks.

    Checking types at run time makes a thousand hooks expensive, and there are 175 networks.
    """
    names, rows = [], []
    with torch.no_grad():
        values = inputs
        for name, module in model.named_children():
            values = module(values)
            names.append(name)
            rows.append(output_statistics(values, len(inputs)))
    return propagation_profile(names, rows).column("second_moment")


def moment(function: Function, power: int, variances: Tensor) -> Tensor:
    return gaussian_mean(lambda x: function(x) ** power, variances)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("scheme", DENSE_SCHEMES)
def test_thirty_layers_of_every_kind_follow_the_theory(scheme: str, activation: str) -> None:
    torch.manual_seed(0)
    linears = linear_layers(scheme=scheme, activation=activation, depth=DEPTH, width=WIDTH)
    field = mean_field_of(scheme, activation=activation, fan_in=WIDTH)
    function = make_activation(activation)
    for norm in FEATURE_NORMS:
        model = dense_network(linears, activation=activation, norm=norm)
        inputs = torch.randn(32 if norm == "batch" else 1, WIDTH)  # batch norm needs a batch
        found = second_moments(model, inputs)
        linear, normed, active = (
            torch.tensor(found[start::3], dtype=torch.float64) for start in range(3)
        )
        # What enters each activation: what the layer before put out, times the weights' variance.
        before = torch.cat([inputs.double().square().mean()[None], active[:-1]])
        entering = field.weight_variance * before + field.bias_variance
        if norm != "none":  # whatever came in, what goes on has the second moment 1
            felt = linear < 0.01  # where the sums are so small, the norm's epsilon counts
            assert torch.allclose(normed[~felt], torch.ones(()).double(), rtol=2e-3), norm
            entering = normed
        second = moment(function, 2, entering)
        excess = moment(function, 4, entering) / second.square() - 1
        apart = (active / second).log().abs()
        assert bool((apart < 5 * (excess / WIDTH).sqrt() + excess / WIDTH).all()), norm
        if norm == "none":
            _check_whole_depth(active, field, function, float(inputs.square().mean()))


def _check_whole_depth(active: Tensor, field: MeanField, function: Function, start: float) -> None:
    """The variance of the last layer's outputs against that of the theory from the input on."""
    first = field.weight_variance * start + field.bias_variance
    variances = torch.tensor(field.propagate(DEPTH, variance=first).column("variance"))
    second = moment(function, 2, variances)
    excess = moment(function, 4, variances) / second.square() - 1
    slopes = (moment(function, 2, variances * 1.01) / second).log() / math.log(1.01)
    variance = 0.0
    for slope, added in zip(slopes.tolist(), excess.tolist(), strict=True):
        variance = slope**2 * variance + added / WIDTH
    # A product of many factors leans to below its mean by half the variance of its logarithm.
    leaning = variance / 2
    apart = abs(math.log(float(active[-1] / second[-1])))
    assert apart < 5 * math.sqrt(variance) + leaning


@pytest.mark.parametrize("norm", ["none", "rms"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "selu"])
def test_size_and_likeness_of_inputs_follow_the_theory(activation: str, norm: str) -> None:
    torch.manual_seed(0)
    width = 1000
    linears = linear_layers(scheme="he", activation=activation, depth=5, width=width)
    model = dense_network(linears, activation=activation, norm=norm, width=width)
    shared, own = torch.randn(1, width), torch.randn(16, width)
    profile = predicted_propagation(model, (own + shared) / 2**0.5)  # a correlation of 1/2
    first = profile.at("0")["predicted_cosine"]
    assert first == pytest.approx(0.5, abs=5 / width**0.5)
    deviation = (15 * 5 / width) ** 0.5  # 5 bounds the excess of these activations
    assert profile.column("ratio") == pytest.approx([1.0] * 15, abs=2 * deviation)
    for found, said in zip(
        profile.column("cosine"), profile.column("predicted_cosine"), strict=True
    ):
        assert found == pytest.approx(said, abs=5 * (5 / width) ** 0.5)  # of five layers


def test_the_prediction_is_that_of_the_mean_field_theory() -> None:
    """Exactly, once weights and inputs have exactly the variances of the theory."""
    torch.manual_seed(0)
    field = mean_field_of("he", activation="tanh")
    linears = linear_layers(scheme="he", activation="tanh", depth=5, width=WIDTH)
    for layer in linears:
        size = WIDTH * layer.weight.detach().double().square().mean()
        layer.weight.data *= (field.weight_variance / size).sqrt()
    model = dense_network(linears, activation="tanh", norm="none")
    inputs = functional.normalize(torch.randn(2, WIDTH), dim=1) * (2 * WIDTH) ** 0.5
    profile = predicted_propagation(model, inputs)
    start = functional.cosine_similarity(inputs[0], inputs[1], dim=0).item()
    theory = field.propagate(5, variance=2.0 * field.weight_variance, correlation=start)
    sums = [profile.at(f"{3 * index}") for index in range(5)]
    assert [row["predicted"] for row in sums] == pytest.approx(theory.column("variance"), rel=1e-5)
    assert [row["predicted_cosine"] for row in sums] == pytest.approx(
        theory.column("correlation"), rel=1e-4
    )


class Functions(nn.Module):
    """The same network as functions, a flattened image at its head."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.weights = nn.ParameterList([model[1].weight, model[3].weight])
        self.biases = nn.ParameterList([model[1].bias, model[3].bias])

    def forward(self, x: Tensor) -> Tensor:
        x = functional.linear(x.flatten(1), self.weights[0], self.biases[0])
        x = functional.leaky_relu(x, 0.2)
        return functional.relu(functional.linear(x, self.weights[1], self.biases[1]))


def test_functions_are_understood_as_modules_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(48, 64), nn.LeakyReLU(0.2, inplace=True), nn.Linear(64, 64),
        nn.ReLU(inplace=True),
    )  # fmt: skip
    inputs = torch.randn(8, 3, 4, 4)
    modules = predicted_propagation(model, inputs)
    functions = predicted_propagation(Functions(model), inputs)
    assert functions.layers == ("linear", "leaky_relu", "linear (call 2)", "relu")
    for column in ("predicted", "predicted_cosine", "ratio"):
        assert functions.column(column) == pytest.approx(modules.column(column)[1:], rel=1e-5)


def test_behind_a_layer_it_does_not_know_the_theory_begins_anew() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Softmax(dim=1), nn.ReLU(), nn.Linear(64, 64))
    profile = predicted_propagation(model, torch.randn(8, 64))
    said = profile.column("predicted")
    assert math.isnan(said[1]) and math.isnan(said[2])
    assert said[3] == pytest.approx(profile.column("second_moment")[3], rel=5 * (2 / 64) ** 0.5)


def test_dropout_in_training_adds_its_noise() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2000, 2000), nn.ReLU(), nn.Dropout(0.5))
    inputs = torch.randn(8, 2000)
    training, evaluating = (
        predicted_propagation(model.train(mode), inputs) for mode in (True, False)
    )
    assert training.at("2")["predicted"] == pytest.approx(2 * evaluating.at("2")["predicted"])
    assert training.at("2")["ratio"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("norm", [nn.LayerNorm(1000), nn.GroupNorm(4, 1000), nn.RMSNorm(1000)])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.GELU])
def test_a_norm_behind_an_activation_removes_the_mean_from_the_cosine(
    activation: type[nn.Module], norm: nn.Module
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(1000, 1000), activation(), norm, nn.Linear(1000, 1000), nn.ReLU(),
    )  # fmt: skip
    profile = predicted_propagation(model, torch.randn(16, 1000))
    assert profile.column("ratio") == pytest.approx([1.0] * 5, abs=0.2)
    assert profile.column("predicted_cosine") == pytest.approx(profile.column("cosine"), abs=0.05)


def test_a_mean_that_rms_norm_leaves_is_removed_by_a_later_norm() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(1000, 1000), nn.ReLU(), nn.RMSNorm(1000), nn.Dropout(0.2), nn.LayerNorm(1000)
    )
    profile = predicted_propagation(model, torch.randn(16, 1000))
    assert profile.column("predicted_cosine") == pytest.approx(profile.column("cosine"), abs=0.05)


@pytest.mark.parametrize(
    "between",
    [[nn.ReLU()], [nn.ReLU(), nn.LayerNorm(64)], [nn.Dropout(0.5)], [nn.ReLU(), nn.Identity()]],
)
def test_an_activation_of_what_is_not_gaussian_is_not_predicted(between: list[nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), *between, nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    said = predicted_propagation(model, torch.randn(4, 64)).column("predicted")
    known = [not math.isnan(value) for value in said]
    assert known == [True] * (1 + len(between)) + [False, True, True]


def test_scales_of_a_norm_that_differ_end_the_prediction_at_the_activation() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Tanh())
    inputs = torch.randn(4, 64)
    assert predicted_propagation(model, inputs).at("2")["predicted"] > 0
    with torch.no_grad():
        model[1].weight[0] = 5.0
    assert math.isnan(predicted_propagation(model, inputs).at("2")["predicted"])


GRID = {"relu": 1000, "tanh": 256, "gelu": 500, "sigmoid": 1000, "leaky_relu": 256, "selu": 500}
"""Activations and widths."""


@pytest.mark.parametrize("norm_last", [False, True], ids=["norm first", "norm last"])
@pytest.mark.parametrize("norm", FEATURE_NORMS)
@pytest.mark.parametrize("scheme", ["he", "lecun", "orthogonal"])
def test_both_columns_hold_for_initialisations_activations_and_norms(
    scheme: str, norm: str, norm_last: bool
) -> None:
    """The measurement itself over its grid, three layers deep."""
    torch.manual_seed(0)
    for activation, width in GRID.items():
        linears = linear_layers(scheme=scheme, activation=activation, depth=3, width=width)
        layers: list[nn.Module] = []
        for linear in linears:
            parts = [make_feature_norm(norm, width), make_activation(activation)]
            layers += [linear, *(reversed(parts) if norm_last else parts)]
        shared, own = torch.randn(1, width), torch.randn(32, width)
        profile = predicted_propagation(nn.Sequential(*layers), (own + shared) / 2**0.5)
        room = 5 * (5 * 3 / width) ** 0.5
        assert all(abs(math.log(ratio)) < room for ratio in profile.column("ratio")), activation
        said = profile.column("predicted_cosine")
        assert any(map(math.isnan, said)) == (norm == "batch"), activation
        apart = [
            abs(one - other) for one, other in zip(profile.column("cosine"), said, strict=True)
        ]
        assert not any(value > room / 4 for value in apart), activation  # NaN is not


def test_batch_norm_in_evaluation_is_no_longer_of_this_batch() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)).eval()
    profile = predicted_propagation(model, torch.randn(4, 8))
    assert math.isnan(profile.at("1")["predicted"])
    assert profile.at("2")["predicted"] > 0


def test_scale_and_shift_of_a_norm_count() -> None:
    model = nn.Sequential(nn.Linear(400, 400), nn.LayerNorm(400))
    nn.init.constant_(model[1].weight, 3.0)
    nn.init.constant_(model[1].bias, 2.0)
    row = predicted_propagation(model, torch.randn(4, 400)).at("1")
    assert row["predicted"] == pytest.approx(13, rel=1e-3)
    assert row["ratio"] == pytest.approx(1, rel=1e-2)


def test_the_model_is_as_before_and_one_without_linear_layers_is_said() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    predicted_propagation(model, torch.ones(3, 4))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(MeasurementError, match="Conv2d, which has none"):
        predicted_propagation(nn.Conv2d(1, 1, 1), torch.ones(2, 1, 4, 4))
