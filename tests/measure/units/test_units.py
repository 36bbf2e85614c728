"""Tests of the states of units, against counts that are made entry by entry."""

from __future__ import annotations

import copy
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.core.taps import Taps
from leadline.measure.units.units import UnitRecorder, duplicate_units, unit_states, units

# Per unit, the inputs lie between these bounds: dead, mixed and linear ones for every activation.
RANGES = ((-60.0, -50.0), (-60.0, 60.0), (-0.05, 0.05), (0.1, 0.15), (50.0, 60.0), (-30.0, -9.5))


def ranged(shape: tuple[int, ...], axis: int) -> Tensor:
    """Random inputs of six units, each within its range, in 64 bits."""
    torch.manual_seed(0)
    low, high = torch.tensor(RANGES, dtype=torch.float64).T
    shape_of_units = [1] * len(shape)
    shape_of_units[axis] = len(RANGES)
    low, high = low.reshape(shape_of_units), high.reshape(shape_of_units)
    return low + (high - low) * torch.rand(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("module", "made_for"),
    [
        (nn.ReLU(), 1.0),
        (nn.ReLU(inplace=True), 1.0),
        (nn.ReLU6(), 1.0),
        (nn.Sigmoid(), 0.25),
        (nn.Tanh(), 1.0),
        (nn.ELU(), 1.0),
        (nn.GELU(), 1.0),
        (nn.SiLU(), 1.0),
        (nn.SiLU(inplace=True), 1.0),
        (nn.Hardswish(inplace=True), 1.0),
        (nn.Hardtanh(), 1.0),
        (nn.Softplus(), 1.0),
    ],
    ids=str,
)
@pytest.mark.parametrize(("shape", "axis"), [((7, 6, 3, 5), 1), ((40, 6), 1)])
def test_states_are_those_of_the_slopes_entry_by_entry(
    module: nn.Module, made_for: float, shape: tuple[int, ...], axis: int
) -> None:
    x = ranged(shape, axis)
    states = unit_states(nn.Sequential(nn.Identity(), module), x.clone())["1"]
    leaf = x.clone().requires_grad_()
    y = module(leaf.clone())
    share = (torch.autograd.grad(y.sum(), leaf)[0] / made_for).movedim(axis, 0).flatten(1)
    output = y.detach().movedim(axis, 0).flatten(1)
    inputs = x.movedim(axis, 0).flatten(1)
    dips = isinstance(module, nn.GELU | nn.SiLU | nn.Hardswish)
    dip = dips & (inputs < -0.3) & (inputs > -2.0)  # where the slope crosses 0
    flat = (share.abs() <= 0.05) & ~dip
    dead = (share.abs() <= 0.001).all(1)
    assert states.entries == output.shape[1]
    assert torch.equal(states.dead, dead)
    torch.testing.assert_close(states.flat.double(), flat.double().mean(1), atol=1e-6, rtol=0)
    zeros = (output == 0).double().mean(1)
    torch.testing.assert_close(states.zeros.double(), zeros, atol=1e-6, rtol=0)
    linear = ((share - 1).abs() <= 0.05).all(1)
    assert torch.equal(states.always_on, linear & ~dead)


def test_saturated_is_flat_away_from_zero() -> None:
    x = torch.zeros(100, 4)
    x[:, 0], x[:, 1] = 5.0, -5.0  # slopes of 2.7 % and 0.7 % of the largest
    x[:, 2:] = 1.0
    x[:96, 2] = 5.0
    x[:94, 3] = 5.0
    sigmoid = unit_states(nn.Sequential(nn.Sigmoid()), x)["0"]
    assert sigmoid.saturated.tolist() == [True, True, True, False]
    assert not sigmoid.dead.any()
    relu6 = unit_states(nn.Sequential(nn.ReLU6()), 2 * x)["0"]
    assert relu6.saturated.tolist() == [False, False, True, False]
    assert relu6.dead.tolist() == [True, True, False, False]  # at the ceiling, at 0
    relu = unit_states(nn.Sequential(nn.ReLU()), -x)["0"]
    assert not relu.saturated.any()


def test_a_leaky_unit_is_linear_on_either_side_of_its_kink() -> None:
    x = torch.stack([torch.full((9,), -1.0), torch.full((9,), 1.0), torch.arange(9.0) - 4], 1)
    states = unit_states(nn.Sequential(nn.LeakyReLU(0.01)), x)["0"]
    assert states.always_on.tolist() == [True, True, False]
    assert not states.dead.any()


def brute_force_duplicates(activations: Tensor) -> list[bool]:
    """By the whole matrix of correlations, in 64 bits."""
    rows = activations.double().movedim(1, 0).flatten(1).numpy()
    varied = rows.std(1) > 1e-9
    rows = rows + (~varied)[:, None] * numpy.random.default_rng(0).normal(size=rows.shape)
    alike = abs(numpy.corrcoef(rows)) > 1 - 1e-7
    numpy.fill_diagonal(alike, False)
    return list(alike.any(1) & varied)


@pytest.mark.parametrize("shape", [(4, 300, 5, 5), (2, 40, 30, 30), (30, 2048)])
def test_duplicates_are_those_of_the_whole_correlation_matrix(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    x[:, 7] = x[:, 30]  # identical
    x[:, 8] = -2 * x[:, 31] + 3  # perfectly anti-correlated
    x[:, 9] = x[:, 10] = x[:, 11]  # three of a kind
    x[:, 12] = x[:, 13] = 1.0  # constant ones are not counted
    x[:, 14] = x[:, 15] * 1.05 + 0.05 * torch.randn(x[:, 15].shape, generator=generator)
    states = unit_states(nn.Sequential(nn.LeakyReLU(1.0)), x)["0"]
    expected = [index in (7, 8, 9, 10, 11, 30, 31) for index in range(shape[1])]
    assert states.duplicate.tolist() == expected
    assert expected == brute_force_duplicates(x)


def test_units_that_fire_on_one_example_alone_are_no_duplicates() -> None:
    x = -torch.ones(8, 50)
    x[3] = torch.rand(50, generator=torch.Generator().manual_seed(0)) + 0.1
    assert not unit_states(nn.Sequential(nn.ReLU()), x)["0"].duplicate.any()


@pytest.mark.parametrize("examples", [1, 2, 3, 8])
def test_few_examples_make_no_duplicates_by_chance(examples: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 1000), nn.Tanh(), nn.Linear(1000, 500), nn.ReLU())
    states = unit_states(model, torch.randn(examples, 20))
    assert not any(state.duplicate.any() for state in states.values())


def test_a_layer_of_one_input_has_collinear_outputs_but_no_copies() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 64))
    assert duplicate_units(model, torch.randn(50, 1)).column("duplicate") == (0.0,)
    with torch.no_grad():
        model[0].weight[5] = model[0].weight[9]
    assert duplicate_units(model, torch.randn(50, 1)).column("duplicate") == (2 / 64,)


def test_a_layer_of_zeros_has_no_duplicates() -> None:
    model = nn.Sequential(nn.Linear(4, 8))
    nn.init.zeros_(model[0].weight)
    assert duplicate_units(model, torch.randn(50, 4)).column("duplicate") == (0.0,)


class Functional(nn.Module):
    """Activations that are no modules, one in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> dict[str, Any]:
        hidden = functional.silu(self.first(x), inplace=True)
        hidden = functional.gelu(self.second(hidden))
        return {"probabilities": functional.softmax(hidden, dim=1)}


def test_functions_are_activations_and_a_softmax_is_none() -> None:
    torch.manual_seed(0)
    model = Functional()
    with torch.no_grad():
        model.first.bias[:2] = -30.0
        model.second.bias[3] = -30.0
    profile = units(model, torch.randn(32, 6))
    assert profile.layers == ("silu", "gelu")
    assert profile.column("dead") == pytest.approx((2 / 6, 1 / 6))


def test_a_reused_module_has_a_row_for_each_call() -> None:
    relu = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 5), relu)
    profile = units(model, torch.randn(8, 3))
    assert profile.layers == ("1", "1 (call 2)")
    assert profile.column("units") == (4.0, 5.0)
    assert profile.column("entries") == (8.0, 8.0)


def test_half_precision_and_channels_last_are_counted_exactly() -> None:
    x = torch.randn(4, 6, 32, 32, generator=torch.Generator().manual_seed(0))
    x[:, 2] = -1
    model = nn.Sequential(nn.ReLU())
    expected = (x <= 0).float().mean((0, 2, 3))
    for inputs in (x.bfloat16(), x.to(memory_format=torch.channels_last)):
        states = unit_states(model, inputs)["0"]
        torch.testing.assert_close(states.zeros, expected, atol=1e-6, rtol=0)
        assert states.dead.tolist() == [False, False, True, False, False, False]


def test_a_model_without_activations_gives_no_rows() -> None:
    profile = units(nn.Linear(2, 2), torch.ones(4, 2))
    assert profile.layers == ()
    assert profile.column("dead") == ()


def test_the_model_is_left_as_it_was_found() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.SiLU(inplace=True), nn.Dropout())
    model(torch.randn(5, 3)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
    stream = torch.get_rng_state()
    units(model, torch.ones(6, 3))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(
        torch.equal(old, parameter.grad)  # type: ignore[arg-type]
        for old, parameter in zip(gradients, model.parameters(), strict=True)
    )
    assert torch.equal(stream, torch.get_rng_state())
    assert model.training


def test_a_recorder_listens_to_a_pass_that_somebody_else_runs() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    inputs = torch.randn(8, 3)
    recorder = UnitRecorder()
    with Taps(model) as taps:
        recorder.listen(taps)
        model(inputs).sum().backward()
    assert recorder.activations() == units(model, inputs)
    assert recorder.weights() == duplicate_units(model, inputs)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.ones(0, 3), "at least one example"),
        (torch.full((2, 3), torch.nan), "finite inputs"),
        (torch.ones(2, 5), "in Linear '0', given"),
    ],
)
def test_bad_inputs_are_described(inputs: Tensor, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        units(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), inputs)
