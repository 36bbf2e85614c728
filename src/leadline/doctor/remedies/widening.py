"""Remedies of width and depth: narrow layers widened, layers skipped or put in, pictures kept.

A layer that is made wider hands more to the next one that has weights, which then must take more;
norms between them count the same units. So a chain is rebuilt: the narrow layer, the norms behind
it, and the layer that reads them. Between the two nothing may join from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _MaxPoolNd,
)

from leadline.core.grafts import graft_before
from leadline.doctor.remedies.surgery import operated, put
from leadline.doctor.remedy import Remedy


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A layer of `units` outputs, the norms behind it, and the layer that reads them, by name."""

    layer: str
    norms: tuple[str, ...]
    reader: str
    units: int


def wider(chains: Sequence[Chain], widths: Mapping[str, int]) -> Remedy:
    """Rebuild narrow layers with as many units as `widths` says by the layer's name."""

    def change(model: nn.Module) -> nn.Module:
        for chain in chains:
            model = widen(model, chain, to=widths[chain.layer])
        return model

    return Remedy(
        title="wider layers: "
        + ", ".join(f"{c.layer} of {widths[c.layer]} units instead of {c.units}" for c in chains),
        apply=lambda setup: operated(setup, change),
        lines=tuple(
            line
            for c in chains
            for line in (f"- {c.layer}: {c.units} units", f"+ {c.layer}: {widths[c.layer]} units")
        ),
    )


def widen(model: nn.Module, chain: Chain, *, to: int) -> nn.Module:
    """The model with the chain's layer `to` units wide; what is rebuilt begins with new weights.

    Raises ValueError for layers of other kinds than dense ones and convolutions.

    >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3))
    >>> widen(model, Chain(layer="0", norms=(), reader="2", units=2), to=16)[2].in_features
    16
    """
    layer, reader = model.get_submodule(chain.layer), model.get_submodule(chain.reader)
    model = put(model, chain.layer, _like(layer, outputs=to))
    for name in chain.norms:
        model = put(model, name, _norm_like(model.get_submodule(name), to))
    inputs = _inputs_of(reader)
    return put(model, chain.reader, _like(reader, inputs=inputs // chain.units * to))


def _inputs_of(layer: nn.Module) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)  # type: ignore[arg-type]  # a convolution's is a number


def _like(layer: nn.Module, *, inputs: int | None = None, outputs: int | None = None) -> nn.Module:
    """A layer of the same kind and settings with another number of inputs or outputs."""
    parameter = next(layer.parameters())
    where: dict[str, Any] = {"device": parameter.device, "dtype": parameter.dtype}
    if type(layer) is nn.Linear:
        return nn.Linear(
            inputs or layer.in_features,
            outputs or layer.out_features,
            bias=layer.bias is not None,
            **where,
        )
    if type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d) and isinstance(layer, _ConvNd):
        if layer.groups != 1:
            raise ValueError(f"a convolution in {layer.groups} groups cannot be widened")
        make: Any = type(layer)
        made: nn.Module = make(
            inputs or layer.in_channels,
            outputs or layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
            **where,
        )
        return made
    if isinstance(layer, nn.RNNBase) and type(layer) in (nn.RNN, nn.GRU, nn.LSTM) and outputs:
        if layer.proj_size or inputs:
            raise ValueError("a recurrent layer with a projection cannot be widened")
        return _recurrent_like(layer, outputs, where)
    raise ValueError(f"a {type(layer).__name__} cannot be widened")


def _recurrent_like(layer: nn.RNNBase, units: int, where: dict[str, Any]) -> nn.Module:
    make: Any = type(layer)
    kind = {"nonlinearity": layer.nonlinearity} if isinstance(layer, nn.RNN) else {}
    made: nn.Module = make(
        layer.input_size,
        units,
        num_layers=layer.num_layers,
        bias=layer.bias,
        batch_first=layer.batch_first,
        dropout=layer.dropout,
        bidirectional=layer.bidirectional,
        **kind,
        **where,
    )
    return made


def _norm_like(norm: nn.Module, units: int) -> nn.Module:
    if isinstance(norm, _BatchNorm):
        make: Any = type(norm)
        made: nn.Module = make(
            units,
            eps=norm.eps,
            momentum=norm.momentum,
            affine=norm.affine,
            track_running_stats=norm.track_running_stats,
        )
        return made
    if isinstance(norm, nn.LayerNorm) and len(norm.normalized_shape) == 1:
        return nn.LayerNorm(units, eps=norm.eps, elementwise_affine=norm.elementwise_affine)
    raise ValueError(f"a {type(norm).__name__} cannot be widened")


def skipped(names: Sequence[str], *, layers: int) -> Remedy:
    """Leave out modules that answer in the size they are given, `layers` of them with weights."""
    return _left_out(names, title=f"{layers} hidden layers fewer")


def unpooled(names: Sequence[str]) -> Remedy:
    """Leave out pooling layers, and what blows their maps up again, ahead of the first weights."""
    return _left_out(names, title="no pooling ahead of the first weights")


def _left_out(names: Sequence[str], *, title: str) -> Remedy:
    def change(model: nn.Module) -> nn.Module:
        for name in names:
            model = put(model, name, nn.Identity())
        return model

    return Remedy(
        title=title,
        apply=lambda setup: operated(setup, change),
        lines=tuple(f"- {name}" for name in names),
    )


def hidden_layer(name: str, *, units: int) -> Remedy:
    """Put a dense layer and a rectifier before the dense layer named."""

    def change(model: nn.Module) -> nn.Module:
        old = model.get_submodule(name)
        if type(old) is not nn.Linear:
            raise ValueError(f"a {type(old).__name__} is given no hidden layer")
        first = _like(old, outputs=units)
        return put(model, name, nn.Sequential(first, nn.ReLU(), _like(old, inputs=units)))

    return Remedy(
        title=f"a hidden layer of {units} units before {name or 'the only one'}",
        apply=lambda setup: operated(setup, change),
        lines=(f"+ nn.Linear(inputs, {units}), nn.ReLU(),  # before {name or 'it'}",),
    )


def one_activation(names: Sequence[str]) -> Remedy:
    """Leave out activations that follow one of the same kind."""

    def change(model: nn.Module) -> nn.Module:
        for name in names:
            model = put(model, name, nn.Identity())
        return model

    return Remedy(
        title="one activation instead of two in a row",
        apply=lambda setup: operated(setup, change),
        lines=tuple(f"- {name}" for name in names),
    )


def larger_maps(pools: Sequence[str], flatten: str, size: Sequence[int]) -> Remedy:
    """Leave out pooling layers, and pool to the old `size` only before the maps are flattened."""

    def change(model: nn.Module) -> nn.Module:
        for name in pools:
            model = put(model, name, nn.Identity())
        graft_before(model.get_submodule(flatten), _Pooled(tuple(size)))
        return model

    return Remedy(
        title=f"{len(pools)} pooling layers fewer before the last convolutions",
        apply=lambda setup: operated(setup, change),
        lines=(
            *(f"- {name}" for name in pools),
            f"+ nn.AdaptiveMaxPool2d({tuple(size)})  # before {flatten}",
        ),
    )


class _Pooled:
    def __init__(self, size: tuple[int, ...]) -> None:
        self.size = size

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps, *others = inputs
        return (functional.adaptive_max_pool2d(maps, self.size), *others)


def is_pooling(module: nn.Module) -> bool:
    """Whether a module takes the mean or largest of patches of a picture."""
    return isinstance(module, _MaxPoolNd | _AvgPoolNd | _AdaptiveAvgPoolNd | _AdaptiveMaxPoolNd)
