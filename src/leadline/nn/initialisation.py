"""Initialisation: how large the first weights are, so that signals and gradients survive the depth.

With fan_in inputs and fan_out outputs per unit and the activation's gain g, the variance is
    xavier      2 / (fan_in + fan_out)   Glorot & Bengio 2010, uniform
    he          g^2 / fan_in             He et al. 2015, normal
    lecun       1 / fan_in               LeCun et al. 1998, normal; the one SELU is made for
    orthogonal  g times a random orthogonal matrix; every singular value is g (Saxe et al. 2013)
    trunc_normal  0.02^2, whatever the fans (BERT, ViT, ConvNeXt)
    zero_last   he, with the last norm (or else weight layer) of each residual branch at 0
                (Goyal et al. 2017): every block starts as its shortcut
    fixup       he, with the last weight layer of each branch and the head at 0 and the others of
                a branch times L^(-1/(2m-2)), L branches of m weight layers each: trains deep
                residual networks without any norm (Zhang et al. 2019)
    default     PyTorch's own, left as built

Biases start at 0 and norms at the identity. The surprising choice: Fixup's scalar biases are left
to the biases per channel that layers without a norm have anyway, which can do all they can (but for
the zero padding); its scalar multiplier is in `ResidualAdd(scaled=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from leadline.core.errors import ModelError
from leadline.core.names import look_up
from leadline.nn.activations import activation_gain
from leadline.nn.residual import residual_blocks

InitName = Literal[
    "xavier", "he", "lecun", "orthogonal", "trunc_normal", "fixup", "zero_last", "default"
]

WEIGHT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
WeightLayer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def initialise(model: nn.Module, *, scheme: str, activation: str) -> None:
    """Draw all weights of linear and convolutional layers anew, in place, from the global RNG.

    `activation` names the non-linearity between the layers, whose gain He's scheme and the
    orthogonal one use. Other parameters (embeddings, recurrent layers) stay as they are. Raises
    UnknownNameError for an unknown scheme or activation, and ModelError when `fixup` or
    `zero_last` finds no residual block, or `fixup` a norm in one.

    >>> layer = nn.Linear(1000, 100)
    >>> initialise(layer, scheme="he", activation="relu")
    >>> bool(abs(layer.weight.var() * 1000 / 2 - 1) < 0.05)
    True
    """
    draw = look_up(scheme, SCHEMES, kind="initialisation")
    draw(model, activation_gain(activation))


def weight_layers(model: nn.Module) -> tuple[WeightLayer, ...]:
    """The linear and convolutional layers of `model`, in module order."""
    return tuple(module for module in model.modules() if isinstance(module, WEIGHT_LAYERS))


def _draw(model: nn.Module, fill: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for layer in weight_layers(model):
        fill(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _fan_in(weight: torch.Tensor) -> int:
    return weight[0].numel()


def _xavier(model: nn.Module, gain: float) -> None:
    _draw(model, nn.init.xavier_uniform_)


def _he(model: nn.Module, gain: float) -> None:
    _draw(model, lambda weight: nn.init.normal_(weight, std=gain / _fan_in(weight) ** 0.5))


def _lecun(model: nn.Module, gain: float) -> None:
    _he(model, 1.0)


def _orthogonal(model: nn.Module, gain: float) -> None:
    _draw(model, lambda weight: nn.init.orthogonal_(weight, gain))


def _trunc_normal(model: nn.Module, gain: float) -> None:
    _draw(model, lambda weight: nn.init.trunc_normal_(weight, std=0.02))


def _zero_last(model: nn.Module, gain: float) -> None:
    branches = _branches(model, scheme="zero_last")
    _he(model, gain)
    for branch in branches:
        _zero(next(module for module in reversed(branch) if _parameters(module)))


def _fixup(model: nn.Module, gain: float) -> None:
    branches = _branches(model, scheme="fixup")
    for branch in branches:
        if any(_parameters(module) and not weight_layers(module) for module in branch):
            raise ModelError(
                expected="residual branches without any norm: Fixup takes its place",
                received=f"a branch of {', '.join(type(m).__name__ for m in branch)}",
                remedy="set the norm to 'none', or use the initialisation 'zero_last'",
            )
    _he(model, gain)
    for branch in branches:
        layers = [layer for module in branch for layer in weight_layers(module)]
        _zero(layers[-1])
        for layer in layers[:-1]:
            with torch.no_grad():
                layer.weight.mul_(len(branches) ** (-1 / (2 * len(layers) - 2)))
    head = weight_layers(model)[-1]
    if not any(head is part for branch in branches for m in branch for part in m.modules()):
        _zero(head)


def _branches(model: nn.Module, *, scheme: str) -> tuple[tuple[nn.Module, ...], ...]:
    branches = tuple(b for block in residual_blocks(model) for b in block.branches())
    if not branches:
        raise ModelError(
            expected=f"residual blocks for the initialisation '{scheme}'",
            received=f"a {type(model).__name__} without a residual path",
            remedy="switch the residual path on, or use the initialisation 'he'",
        )
    return branches


def _parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def _keep(model: nn.Module, gain: float) -> None:
    """PyTorch's own initialisation, which every layer drew when it was built."""


SCHEMES: dict[str, Callable[[nn.Module, float], None]] = {
    "xavier": _xavier,
    "he": _he,
    "lecun": _lecun,
    "orthogonal": _orthogonal,
    "trunc_normal": _trunc_normal,
    "fixup": _fixup,
    "zero_last": _zero_last,
    "default": _keep,
}
