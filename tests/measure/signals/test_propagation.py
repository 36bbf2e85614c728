"""Tests of signal propagation: every column against NumPy in float64, on any kind of module."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.core.errors import MeasurementError
from leadline.measure.signals.propagation import (
    output_statistics,
    propagation_profile,
    signal_propagation,
)


class Residual(nn.Module):
    """A functional ReLU, a sum, a reused module, a tuple as output."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = functional.relu(self.linear(x))
        return x + self.dropout(self.linear(hidden)), hidden


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def expected(values: Any, examples: int) -> dict[str, float]:
    """The columns by NumPy in float64; `values` has the examples first."""
    array = np.asarray(values, dtype=np.float64)
    rows = array.reshape(examples, -1)
    pairs = list(itertools.pairwise(rows))
    return {
        "mean": array.mean(),
        "variance": array.var(),
        "second_moment": (array**2).mean(),
        "cosine": float(np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])),
        "correlation": float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])),
    }


def row(values: Tensor, examples: int) -> dict[str, float]:
    return propagation_profile(["x"], [output_statistics(values, examples)]).at("x")


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_every_column_is_that_of_numpy_at_any_size(size: float, offset: float) -> None:
    values = torch.randn(5, 3, 6, 7, generator=torch.Generator().manual_seed(0)) + offset
    measured = row(values * size, 5)
    for column, value in expected((values * size).double(), 5).items():
        assert measured[column] == pytest.approx(value, rel=1e-4, abs=1e-6 * size), column
    assert measured["nonfinite"] == 0


def test_memory_layouts_and_the_place_of_the_batch_change_nothing() -> None:
    values = torch.randn(5, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    reference = row(values, 5)
    assert row(values.to(memory_format=torch.channels_last), 5) == pytest.approx(reference)
    assert row(values.transpose(0, 1), 5) == pytest.approx(reference)  # (T, B, ...)
    assert row(values.reshape(15, 6, 7), 5) == pytest.approx(reference)  # windows


def test_half_precision_is_computed_in_single() -> None:
    values = (torch.randn(8, 1000, generator=torch.Generator().manual_seed(0)) * 300).half()
    assert row(values, 8)["variance"] == pytest.approx(float(values.double().var(correction=0)))


def test_double_precision_is_kept() -> None:
    values = torch.randn(8, 100, generator=torch.Generator().manual_seed(0)).double() * 1e-100
    assert row(values, 8)["second_moment"] == pytest.approx(
        float((values * 1e100).square().mean()) * 1e-200, rel=1e-12
    )


def test_numbers_that_are_not_finite_are_counted() -> None:
    values = torch.ones(2, 4)
    values[0, 0], values[1, 1] = math.nan, math.inf
    measured = row(values, 2)
    assert measured["nonfinite"] == 0.25
    assert math.isnan(measured["variance"]) and math.isnan(measured["cosine"])


def test_pairs_with_an_example_of_zeros_are_left_out() -> None:
    values = torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]])
    assert row(values, 3)["cosine"] == pytest.approx(1.0)
    assert math.isnan(row(torch.zeros(3, 2), 3)["cosine"])
    assert row(torch.zeros(3, 2), 3)["variance"] == 0


def test_one_example_has_no_likeness() -> None:
    assert math.isnan(row(torch.ones(1, 4), 1)["cosine"])
    assert math.isnan(row(torch.tensor(2.0), 1)["correlation"])


def test_functions_sums_and_second_calls_are_layers_of_their_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Residual())
    model.eval()
    inputs = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        linear = model[0].linear
        first = linear(inputs)
        second = linear(first.relu())
    profile = signal_propagation(model, inputs)
    assert profile.layers == (
        "0.linear", "0/relu", "0.linear (call 2)", "0.dropout", "0/add",
    )  # fmt: skip
    for name, values in (("0/relu", first.relu()), ("0/add", inputs + second)):
        for column, value in expected(values, 6).items():
            assert profile.at(name)[column] == pytest.approx(value, rel=1e-4), column
    ratios = profile.column("variance_ratio")
    assert ratios[0] == 1.0
    assert ratios[-1] == pytest.approx(float((inputs + second).var() / first.var()), rel=1e-4)


def test_an_in_place_activation_does_not_spoil_the_layer_before_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    inputs = torch.randn(6, 4)
    profile = signal_propagation(model, inputs)
    linear = model[0](inputs).detach()
    assert profile.at("0")["mean"] == pytest.approx(float(linear.mean()), rel=1e-5)
    assert profile.at("1")["mean"] == pytest.approx(float(linear.relu().mean()), rel=1e-5)


def test_integers_as_input_and_targets_beside_are_welcome() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 3))
    profile = signal_propagation(model, (torch.randint(10, (4, 5)), torch.zeros(4)))
    assert profile.layers == ("0", "1")
    assert all(math.isfinite(value) for value in profile.column("cosine"))


def test_the_model_and_the_random_stream_are_as_before() -> None:
    model = nn.Sequential(nn.BatchNorm1d(16), nn.Dropout(0.5), Residual())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    signal_propagation(model, torch.randn(6, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(MeasurementError, match="in Linear '0'"):
        signal_propagation(nn.Sequential(nn.Linear(3, 3)), torch.ones(2, 4))
    with pytest.raises(MeasurementError, match="Doubling, in which none ran"):
        signal_propagation(Doubling(), torch.ones(2, 4))
    with pytest.raises(MeasurementError, match="finite inputs"):
        signal_propagation(nn.Linear(1, 1), torch.tensor([[math.nan]]))
    with pytest.raises(MeasurementError, match="at least one example"):
        signal_propagation(nn.Linear(1, 1), torch.ones(0, 1))
