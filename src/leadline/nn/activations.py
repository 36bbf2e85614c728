"""Activations by name: torch.nn's own, and the gain that keeps the signal's size through each.

A layer with weights of variance g^2 / fan_in passes on the mean square of its input unchanged when
g^2 = 1 / E[f(z)^2] for z ~ N(0, 1) (He et al. 2015 for ReLU, where it gives g = sqrt 2). PyTorch's
`calculate_gain` knows the older activations; GELU's and SiLU's follow from that integral.

The surprising choices: no activation works in place, because a hook that reads a layer's output
must see what the layer put out, and PyTorch's full backward hooks refuse in-place changes. SELU
has gain 1, as its paper derives; `calculate_gain` answers 3/4 for reasons of compatibility.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch import nn

from leadline.core.names import look_up

ActivationName = Literal["relu", "relu6", "leaky_relu", "gelu", "silu", "selu", "tanh", "sigmoid"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}

GAINS: dict[str, float] = {
    "relu": nn.init.calculate_gain("relu"),
    "relu6": nn.init.calculate_gain("relu"),  # 6 standard deviations are never reached
    "leaky_relu": nn.init.calculate_gain("leaky_relu", 0.01),  # nn.LeakyReLU's default slope
    "gelu": (1 / 3 + 1 / (2 * math.pi * math.sqrt(3))) ** -0.5,  # E[z^2 Phi(z)^2], closed form
    "silu": 1.6765,  # E[silu(z)^2] = 0.35578 for z ~ N(0, 1), by quadrature
    "selu": 1.0,  # Klambauer et al. 2017: variance 1 is SELU's own fixed point
    "tanh": nn.init.calculate_gain("tanh"),
    "sigmoid": nn.init.calculate_gain("sigmoid"),
}


def make_activation(name: str) -> nn.Module:
    """The activation called `name`, as a fresh torch.nn module; UnknownNameError if there is none.

    >>> make_activation("gelu")
    GELU(approximate='none')
    """
    return look_up(name, ACTIVATIONS, kind="activation")()


def activation_gain(name: str) -> float:
    """The factor on the weights' standard deviation that makes up for the activation `name`.

    >>> round(activation_gain("relu") ** 2, 6)
    2.0
    """
    return look_up(name, GAINS, kind="activation")
