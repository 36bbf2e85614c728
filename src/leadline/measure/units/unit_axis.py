"""The axis of a tensor that counts a layer's units: channels first, or features last.

A convolution's output is [B, C, H, W], a linear layer's [B, F] or [B, T, F], and an activation
after either looks the same. The shape alone cannot tell; the layer that produced it can. So the
layers are followed in the order in which they run: a layer with weights settles the axis, and what
comes after it (an activation, a norm, a sum) keeps the axis of the last tensor of the same shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.measure.layers import Layer

_SPATIAL_DIMENSIONS: tuple[tuple[type[nn.Module], int], ...] = (
    (nn.Conv1d, 1),
    (nn.Conv2d, 2),
    (nn.Conv3d, 3),
    (nn.ConvTranspose1d, 1),
    (nn.ConvTranspose2d, 2),
    (nn.ConvTranspose3d, 3),
)
_SPATIAL_FUNCTIONS = {
    f"conv{kind}{count}d": count for kind in ("", "_transpose") for count in (1, 2, 3)
}
_CHANNELS_FIRST = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
_FEATURES_LAST = ("linear", "addmm", "mm", "embedding")


class UnitAxis:
    """Follows the layers of one forward pass and says which axis of each output counts its units.

    `of` has to be called with every layer, in order, with what it was given and what it returned.

    >>> axis, x = UnitAxis(), torch.ones(2, 8, 8, 8)
    >>> axis.of(Layer(name="conv", kind="Conv2d", module=nn.Conv2d(3, 8, 3)), (), x)
    1
    >>> axis.of(Layer(name="relu", kind="relu"), (), x)
    1
    >>> axis.of(Layer(name="linear", kind="Linear", module=nn.Linear(8, 8)), (), x)
    3
    >>> axis.of(Layer(name="relu (call 2)", kind="relu"), (), x)
    3
    """

    def __init__(self) -> None:
        self._axes: dict[tuple[int, ...], int] = {}  # the latest axis of each shape
        self._width: int | None = None  # the units of the latest layer with weights

    def of(self, layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> int:
        """The axis of `output` along which its units lie, counted from 0."""
        shape = tuple(output.shape)
        axis = _settled(layer, inputs, output)
        if axis is not None:
            self._width = shape[axis]
        elif shape in self._axes:
            axis = self._axes[shape]
        else:
            axis = self._guess(shape)
        self._axes[shape] = axis
        return axis

    def _guess(self, shape: tuple[int, ...]) -> int:
        """After a change of shape: the one axis as long as the last layer had units."""
        alike = [axis for axis in range(1, len(shape)) if shape[axis] == self._width]
        if len(alike) == 1:
            return alike[0]
        return 1 if len(shape) >= 4 else max(len(shape) - 1, 0)


def sample_entries(
    output: Tensor, axis: int, *, count: int, generator: torch.Generator
) -> Float[Tensor, "N U"]:
    """A copy of up to `count` entries of every unit along `axis`, drawn one from each stratum.

    The same entries for all units, spread evenly over examples and positions, none twice. At
    least in 32 bits.

    >>> sample_entries(torch.ones(2, 5, 4, 4), 1, count=8, generator=torch.Generator()).shape
    torch.Size([8, 5])
    """
    units_last = output.movedim(axis, -1)
    shape = units_last.shape[:-1]
    entries = math.prod(shape)
    exact = output.dtype if output.dtype == torch.float64 else torch.float32
    if entries <= count:
        return units_last.reshape(entries, -1).to(exact, copy=True)
    edges = (torch.arange(count + 1, dtype=torch.float64) * (entries / count)).long()
    offset = torch.rand(count, generator=generator, dtype=torch.float64)
    chosen = edges[:-1] + (offset * edges.diff()).long()
    index = torch.unravel_index(chosen.to(output.device), tuple(shape))
    return units_last[index].to(exact)  # a copy already, as the other is made to be


def _settled(layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> int | None:
    """The axis where the layer itself says it: a layer with weights per unit."""
    module = layer.module
    if module is None:
        if layer.kind in _SPATIAL_FUNCTIONS:
            return _channel_axis(output, _SPATIAL_FUNCTIONS[layer.kind])
        if layer.kind == "matmul":  # x @ W is a layer, the product of two activations is none
            second = inputs[1] if len(inputs) > 1 else None
            return output.ndim - 1 if isinstance(second, Tensor) and second.ndim == 2 else None
        return output.ndim - 1 if layer.kind in _FEATURES_LAST else None
    for kind, count in _SPATIAL_DIMENSIONS:
        if isinstance(module, kind):
            return _channel_axis(output, count)
    if isinstance(module, _CHANNELS_FIRST):
        return 1 if output.ndim > 1 else None
    if isinstance(module, nn.Linear | nn.Bilinear | nn.Embedding | nn.EmbeddingBag | nn.RNNBase):
        return output.ndim - 1
    weight = getattr(module, "weight", None)  # somebody's own matrix layer
    if isinstance(weight, Tensor) and weight.ndim == 2 and output.shape[-1] in weight.shape:
        return output.ndim - 1
    return None


def _channel_axis(output: Tensor, spatial: int) -> int:
    return max(output.ndim - spatial - 1, 0)  # 0 where there is no axis of examples
