"""Remedies within the network: activations, dropout, norms, first weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from leadline.core.grafts import graft_behind
from leadline.doctor.remedies.surgery import operated, put, with_output
from leadline.doctor.remedy import Remedy
from leadline.nn.activations import make_activation
from leadline.nn.initialisation import WEIGHT_LAYERS


def other_ending(name: str | None, kind: str | None, *, axis: int = 1, was: str = "") -> Remedy:
    """Put another activation at the end of the model, or none.

    `name` is the module that ends it now, None where nothing has to go; `kind` is 'softmax',
    'sigmoid' or None.
    """
    ends: dict[str, Callable[[Tensor], Tensor]] = {
        "softmax": lambda x: torch.softmax(x, dim=axis),
        "sigmoid": torch.sigmoid,
    }

    def change(model: nn.Module) -> nn.Module:
        if name is not None:
            model = put(model, name, nn.Identity())
        if kind is not None:
            with_output(ends[kind])(model)
        return model

    new = {"softmax": f"nn.Softmax(dim={axis})", "sigmoid": "nn.Sigmoid()", None: ""}[kind]
    title = f"end the model with a {kind}" if kind else "end the model with its last linear layer"
    return Remedy(
        title=title,
        apply=lambda setup: operated(setup, change),
        lines=tuple(
            line for line in (f"- {was}" if was else "", f"+ {new}" if new else "") if line
        ),
    )


def other_activations(names: Sequence[str], kind: str, *, was: str) -> Remedy:
    """Put another activation in the place of those named, and weights for it before them."""

    def change(model: nn.Module) -> nn.Module:
        for name in names:
            model = put(model, name, make_activation(kind))
        redraw(model, activation=kind)
        return model

    made = make_activation(kind)
    return Remedy(
        title=f"{kind} inside the network instead of {was}, and weights drawn for it",
        apply=lambda setup: operated(setup, change),
        lines=(f"- nn.{was}()", f"+ nn.{type(made).__name__}()"),
        settings={"model.activation": kind},
    )


def activation_behind(names: Sequence[str], kind: str = "relu") -> Remedy:
    """Put an activation behind each of the layers named."""

    def change(model: nn.Module) -> nn.Module:
        for name in names:
            layer = model.get_submodule(name) if name else model
            graft_behind(layer, _Through(make_activation(kind)))
        return model

    made = type(make_activation(kind)).__name__
    return Remedy(
        title=f"a {kind} behind " + ", ".join(names),
        apply=lambda setup: operated(setup, change),
        lines=tuple(f"+ nn.{made}()  # behind {name}" for name in names),
    )


class _Through:
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        changed: Tensor = self.module(output)
        return changed


def dropout_times(factor: float) -> Remedy:
    """Scale the rate of every dropout layer; 0 switches them off."""

    def change(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, _DropoutNd):
                module.p = module.p * factor

    title = "no dropout" if factor == 0 else f"dropout rates {factor:g} times as high"
    return Remedy(
        title=title,
        apply=lambda setup: operated(setup, change),
        lines=("- nn.Dropout(p)", f"+ nn.Dropout({factor:g} * p)" if factor else "+"),
        settings={"model.dropout": 0.0} if factor == 0 else {},
    )


def without_dropout(name: str) -> Remedy:
    """Leave out the dropout named."""
    return Remedy(
        title="no dropout of the answers",
        apply=lambda setup: operated(setup, lambda model: put(model, name, nn.Identity())),
        lines=(f"- nn.Dropout(p)  # {name}",),
    )


def dropout_behind(name: str, rate: float) -> Remedy:
    """Put a dropout behind the layer named."""

    def change(model: nn.Module) -> None:
        drop = nn.Dropout(rate)
        model.get_submodule(name).register_module("leadline_dropout", drop)
        graft_behind(model.get_submodule(name), _Through(drop))

    return Remedy(
        title=f"a dropout of {rate:g} behind {name}",
        apply=lambda setup: operated(setup, change),
        lines=(f"+ nn.Dropout({rate:g})  # behind {name}",),
    )


def usual_momentum() -> Remedy:
    """Let batch norms update the statistics that evaluation uses."""

    def change(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, _BatchNorm) and not module.momentum:
                module.momentum = 0.1

    return Remedy(
        title="a momentum of 0.1 in every batch norm",
        apply=lambda setup: operated(setup, change),
        lines=("- momentum=0.0", "+ momentum=0.1"),
    )


def group_norms() -> Remedy:
    """Norms over groups of channels of one example instead of over the batch."""

    def change(model: nn.Module) -> nn.Module:
        norms = [n for n, m in model.named_modules() if isinstance(m, _BatchNorm)]
        for name in norms:
            old = model.get_submodule(name)
            channels = int(getattr(old, "num_features", 1))
            # A feature without an extent in space, alone in its group, would always be 0.
            groups = 1 if isinstance(old, nn.BatchNorm1d) else math.gcd(channels, 8)
            model = put(model, name, _like(old, nn.GroupNorm(groups, channels)))
        return model

    return Remedy(
        title="group norm instead of batch norm",
        apply=lambda setup: operated(setup, change),
        lines=("- nn.BatchNorm2d(channels)", "+ nn.GroupNorm(8, channels)"),
    )


def redraw(model: nn.Module, *, activation: str = "relu") -> None:
    """Draw the weights anew: He (for relu) or Glorot inside, Glorot for the last layer; biases 0.

    Norm layers and embeddings stay as they are.
    """
    layers = [m for m in model.modules() if isinstance(m, WEIGHT_LAYERS)]
    rectifying = activation in ("relu", "leaky_relu", "gelu", "silu")
    for index, layer in enumerate(layers):
        last = index == len(layers) - 1
        if not layer.weight.requires_grad or _tied(model, layer):
            continue
        if rectifying and not last:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        else:
            nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _tied(model: nn.Module, layer: nn.Module) -> bool:
    """Whether another module has the same weight: an embedding keeps its own scale."""
    weight = getattr(layer, "weight", None)
    return sum(getattr(module, "weight", None) is weight for module in model.modules()) > 1


def usual_weights(activation: str = "relu") -> Remedy:
    """Draw all first weights by the usual rule for the activation."""

    def change(model: nn.Module) -> None:
        redraw(model, activation=activation)

    rule = "kaiming_normal_" if activation == "relu" else "xavier_uniform_"
    return Remedy(
        title=f"first weights by torch.nn.init.{rule}, biases 0",
        apply=lambda setup: operated(setup, change),
        lines=(f"+ torch.nn.init.{rule}(layer.weight)", "+ torch.nn.init.zeros_(layer.bias)"),
        settings={"model.init": "he" if activation == "relu" else "xavier"},
    )


def norms_behind(names: Sequence[str]) -> Remedy:
    """Put a norm layer behind each of the layers named: over channels of images, else features."""

    def change(model: nn.Module) -> None:
        for name in names:
            layer = model.get_submodule(name)
            norm = _like(layer, _norm_for(layer))
            layer.register_module("leadline_norm", norm)
            graft_behind(layer, _Through(norm))

    return Remedy(
        title=f"a norm layer behind each of {len(names)} layers",
        apply=lambda setup: operated(setup, change),
        lines=("+ nn.LayerNorm(features)  # behind each linear layer, before its activation",),
        settings={"model.norm": "batch"},
    )


def _like(layer: nn.Module, new: nn.Module) -> nn.Module:
    """The new module on the device and in the precision of the layer it goes with."""
    floating = next((p for p in layer.parameters() if p.is_floating_point()), None)
    return new if floating is None else new.to(device=floating.device, dtype=floating.dtype)


def _norm_for(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.LayerNorm(layer.out_features)
    channels = int(getattr(layer, "out_channels", 1))
    return nn.GroupNorm(math.gcd(channels, 8), channels)
