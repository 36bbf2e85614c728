"""The layers of a network as a table: what runs, in which order, what it returns, what it holds.

The order and the shapes are observed on one forward pass rather than read from the code, so they
hold for anybody's `nn.Module`. A row is a module without children, or one with parameters of its
own; a parameter shared by two modules is counted where it is used first, so the rows add up to
the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from leadline.core.taps import ROOT, Call, Taps, tensors_in
from leadline.report.figures import bar
from leadline.report.markup import Column, escape, folded, prose, section, table
from leadline.report.numbers import count, percent, plural

OPEN_UP_TO = 80
"""A table with more rows than this starts folded."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: `shape` is that of its output for one example, without the batch."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    calls: int


def layer_table(model: nn.Module, sample: Shaped[Tensor, "B ..."]) -> tuple[Layer, ...]:
    """The layers in the order in which a forward pass of `sample` leaves them.

    Layers with parameters that were not called come last, with `calls` 0. The model is
    left as found.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> [(row.kind, row.shape, row.parameters) for row in layer_table(model, torch.ones(1, 4))]
    [('Linear', (3,), 15), ('ReLU', (3,), 0), ('Linear', (2,), 8)]
    """
    found: dict[str, Layer] = {}
    counted: set[int] = set()

    def note(call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        if call.name in found:
            found[call.name] = replace(found[call.name], calls=found[call.name].calls + 1)
        elif _is_row(call.module):
            shape = next((tuple(tensor.shape[1:]) for tensor in tensors_in(output)), ())
            found[call.name] = _layer(call.name, call.module, counted, shape=shape, calls=1)

    with Taps(model) as taps, torch.no_grad():
        model.eval()
        taps.on_output(note)
        model(sample)
    silent = (
        _layer(name or ROOT, module, counted, shape=(), calls=0)
        for name, module in model.named_modules()
        if (name or ROOT) not in found and any(True for _ in module.parameters(recurse=False))
    )
    return (*found.values(), *silent)


def _is_row(module: nn.Module) -> bool:
    own = any(True for _ in module.parameters(recurse=False))
    return own or (not isinstance(module, nn.Identity) and not any(True for _ in module.children()))


def _layer(
    name: str, module: nn.Module, counted: set[int], *, shape: tuple[int, ...], calls: int
) -> Layer:
    own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
    counted.update(map(id, own))
    return Layer(
        name=name,
        kind=type(module).__name__,
        shape=shape,
        parameters=sum(p.numel() for p in own),
        calls=calls,
    )


def layers_section(layers: tuple[Layer, ...]) -> str:
    """The layers as a table in depth order, the parameters as bars, with their total."""
    total = sum(layer.parameters for layer in layers)
    most = max((layer.parameters for layer in layers), default=0) or 1
    rows = [
        [
            str(depth),
            escape(layer.name),
            escape(layer.kind) + _calls(layer),
            escape(" × ".join(map(str, layer.shape)) or "–"),
            count(layer.parameters) if layer.parameters else "–",
            bar(layer.parameters / most) if layer.parameters else "",
        ]
        for depth, layer in enumerate(layers, start=1)
    ]
    columns = [
        Column(name="#", kind="number"),
        Column(name="layer", kind="code"),
        Column(name="type"),
        Column(name="output of one example", kind="number"),
        Column(name="parameters", kind="number"),
        Column(name="", kind="bars"),
    ]
    held = sum(layer.parameters > 0 for layer in layers)
    drawn = table(columns, rows, footer=["", "total", "", "", count(total), ""])
    largest = max(layers, key=lambda layer: layer.parameters, default=None)
    reading = (
        f"{plural(len(layers), 'layer')} in the order in which an image passes them, "
        f"{count(held)} with parameters, {count(total)} parameters together."
    )
    if largest is not None and largest.parameters:
        share = percent(largest.parameters / total, digits=0)
        reading += f" The largest holds {share} of them; its bar is full."
    summary = f"the table of {plural(len(layers), 'layer')}"
    body = drawn if len(layers) <= OPEN_UP_TO else folded(summary, drawn)
    return section("The layers", prose(reading), body, anchor="layers")


def _calls(layer: Layer) -> str:
    if layer.calls == 1:
        return ""
    return " (not used)" if layer.calls == 0 else f" ({layer.calls} times)"
