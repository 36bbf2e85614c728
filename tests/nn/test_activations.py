"""Tests of activations by name."""

from __future__ import annotations

import math

import pytest
import torch

from leadline.core.errors import UnknownNameError
from leadline.nn.activations import ACTIVATIONS, GAINS, activation_gain, make_activation


def mean_square(name: str) -> float:
    """E[f(z)^2] for z ~ N(0, 1), by the trapezoidal rule."""
    z = torch.linspace(-12, 12, 400_001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return torch.trapezoid(make_activation(name)(z) ** 2 * density, z).item()


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "gelu", "silu", "selu"])
def test_the_gain_keeps_the_mean_square_of_a_normal_signal(name: str) -> None:
    assert activation_gain(name) ** 2 * mean_square(name) == pytest.approx(1, abs=2e-4)


def test_every_activation_has_a_gain() -> None:
    assert GAINS.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_leaves_its_input_as_it_was(name: str) -> None:
    signal = torch.linspace(-2, 2, 9)
    before = signal.clone()
    make_activation(name)(signal)
    assert torch.equal(signal, before)


def test_an_unknown_activation_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'rellu' \(did you mean 'relu'\?\)"):
        make_activation("rellu")
