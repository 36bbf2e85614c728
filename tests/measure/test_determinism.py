"""Tests of determinism: what repeats, what draws, what fails on zeros."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.measure.determinism import determinism


class Apply(nn.Module):
    """A layer, then any function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 4), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


INPUTS = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


def test_a_network_with_dropout_and_batch_norm_is_a_function_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    found = determinism(model, INPUTS)
    assert (found.repeated, found.redrawn, found.zeros_finite) == (0.0, 0.0, True)
    assert model.training


DRAWS = {
    "functional dropout": functional.dropout,
    "torch": lambda x: x + 0.1 * torch.rand_like(x),
    "python": lambda x: x + 0.1 * random.random(),
    "numpy": lambda x: x + 0.1 * float(np.random.rand()),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_what_draws_repeats_with_the_same_stream_and_differs_with_another(kind: str) -> None:
    model = Apply(DRAWS[kind])
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]
    found = determinism(model, INPUTS)
    assert found.repeated == 0.0
    assert found.redrawn > 1e-3
    assert torch.equal(streams[0], torch.get_rng_state())
    assert streams[1:] == (random.getstate(), np.random.get_state()[2])


def test_what_counts_its_calls_does_not_repeat() -> None:
    calls: list[int] = []

    def count(x: Tensor) -> Tensor:
        calls.append(1)
        return x * 0 + len(calls)

    found = determinism(Apply(count), INPUTS)
    assert found.repeated == pytest.approx(1.0), "1, then 2: the difference over the first"


def test_another_shape_is_as_different_as_can_be() -> None:
    calls: list[int] = []

    def grow(x: Tensor) -> Tensor:
        calls.append(1)
        return x.repeat(1, len(calls))

    assert determinism(Apply(grow), INPUTS).repeated == float("inf")


def test_nan_in_the_same_places_is_the_same() -> None:
    found = determinism(Apply(torch.log), INPUTS)
    assert found.repeated == 0.0


def test_zeros_that_give_nan_are_told() -> None:
    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x / x.norm(dim=1, keepdim=True))

    assert determinism(Unit(), INPUTS).zeros_finite is False


def test_whole_numbers_have_no_zeros_to_fear() -> None:
    assert determinism(nn.Embedding(5, 3), torch.tensor([[0, 1], [2, 3]])).zeros_finite is None


def test_the_inputs_and_the_model_are_left_as_found() -> None:
    inputs = INPUTS.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2))
    determinism(model, inputs)
    assert torch.equal(inputs, INPUTS)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_cost_is_six_passes_of_two_examples() -> None:
    model, sizes = nn.Linear(4, 2), []
    model.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    determinism(model, INPUTS)
    assert sizes == [2] * 6


class Modes(nn.Module):
    """Scales its input, by another factor in training mode."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.layer, self.factor = nn.Linear(4, 4), factor

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layer(x)
        return answer * self.factor if self.training else answer


@pytest.mark.parametrize("training", [True, False])
def test_the_two_modes_of_a_model_are_held_against_each_other(training: bool) -> None:
    assert determinism(Modes(1.0).train(training), INPUTS).modes == 0.0
    model = Modes(3.0).train(training)
    assert determinism(model, INPUTS).modes == pytest.approx(2.0, rel=1e-5)
    assert model.training is training


class Boxes(nn.Linear):
    """Returns one number in training mode, as detectors return their loss."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).mean() if self.training else super().forward(input)


def spectral() -> nn.Module:
    """A spectral norm whose power iteration has not converged: drawn weights now and then have."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.1),
        nn.RReLU(),
        nn.BatchNorm1d(4),
        spectral(),
        Boxes(4, 4),
        Apply(lambda x: x * random.random()),
        Apply(lambda x: x * float(np.random.rand())),
    ],
    ids=["dropout", "rrelu", "batch norm", "spectral norm", "other shape", "python", "numpy"],
)
def test_modes_that_differ_by_design_are_not_compared(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 4), layer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert determinism(model, INPUTS).modes is None
    assert all(torch.equal(before[name], v) for name, v in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padding_that_torch_fills_with_zeros_in_evaluation_mode_is_no_difference() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    padding = torch.tensor([[False, False, True], [False, True, True]])
    inputs = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    batch = {"src": inputs, "src_key_padding_mask": padding}
    found = determinism(nn.TransformerEncoder(layer, 1), batch).modes
    assert found is not None and found < 1e-5
