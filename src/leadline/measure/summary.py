"""Summary: what a network consists of, and what each layer of it costs.

For every layer, in the order in which they run: the shape it puts out, its parameters, the
operations of its forward pass, the memory that training keeps for its backward pass, and how much
of the input it can see. Operations are those of matrix products and convolutions, a multiplication
and an addition counting two, as torch counts them; papers often give multiply-adds, the half.

Printed are the layers that cost something. The surprising choice: memory is not guessed from shapes
but read off autograd, tensor by tensor, so that what two layers keep together counts once, with the
one that kept it first. It is that of training; evaluation keeps nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from leadline.core.errors import MeasurementError
from leadline.core.taps import Taps
from leadline.measure.batch import Batch, read_batch
from leadline.measure.layers import Layer, on_layer
from leadline.measure.receptive_fields.receptive_field import receptive_field

EXAMPLES = 2  # that a shape stands for: a batch norm cannot train on one
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One layer: what it is, and what it costs for one example.

    `shape` is that of its output without the batch, `flops` counts multiplications and additions,
    `memory` is in bytes, `field` in inputs along the last axis (None where there is no such axis).
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: float
    memory: float
    field: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A network's layers, in the order in which they run, with the sums for one example."""

    model: str
    layers: tuple[LayerSummary, ...]
    parameters: int
    trainable: int

    @property
    def flops(self) -> float:
        """Multiplications and additions of one forward pass of one example."""
        return sum(layer.flops for layer in self.layers)

    @property
    def memory(self) -> float:
        """Bytes that training keeps for the backward pass of one example, without weights."""
        return sum(layer.memory for layer in self.layers)

    @property
    def field(self) -> float | None:
        """The largest receptive field of a layer, in inputs along the last axis."""
        fields = [layer.field for layer in self.layers if layer.field is not None]
        return max((f for f in fields if not math.isnan(f)), default=None)

    def to_plain(self) -> dict[str, Any]:
        """The summary as plain values for JSON."""
        return {
            "model": self.model,
            "parameters": self.parameters,
            "trainable": self.trainable,
            "flops": self.flops,
            "memory": self.memory,
            "receptive_field": self.field,
            "layers": [
                {**vars(layer), "shape": list(layer.shape), "field": _finite(layer.field)}
                for layer in self.layers
            ],
        }

    def __str__(self) -> str:
        rows = [("layer", "kind", "output", "parameters", "FLOPs", "memory", "sees")]
        rows += [
            (
                layer.name,
                layer.kind,
                " x ".join(map(str, layer.shape)) or "1",
                f"{layer.parameters:,}" if layer.parameters else "",
                short(layer.flops) if layer.flops else "",
                short_bytes(layer.memory) if layer.memory else "",
                "" if not _finite(layer.field) else f"{layer.field:,.0f}",
            )
            for layer in self.layers
            if layer.parameters or layer.flops or layer.memory
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                text.ljust(width) if column < 3 else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, "", self.headline()])

    def headline(self) -> str:
        """The sums in one line."""
        frozen = self.parameters - self.trainable
        said = f"{self.model}: {self.parameters:,} parameters"
        said += f" ({frozen:,} of them frozen)" if frozen else ""
        said += (
            f", {short(self.flops)}FLOPs forward and {short_bytes(self.memory)} kept in training"
        )
        return f"{said}, for one example"


def summary(model: nn.Module, inputs: Any) -> Summary:
    """What `model` consists of; `inputs` is a batch, or the shape of one example: (3, 224, 224).

    The model is run once in training mode and once in evaluation, and left as it was found. On the
    `meta` device that costs no memory. Raises MeasurementError for inputs that the model cannot
    read.

    >>> found = summary(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2))
    >>> found.parameters, found.flops
    (65, 120.0)
    """
    batch = _batch(model, inputs)
    fields = _fields(model, batch)
    reader = _Reader(model, batch)
    with Taps(model) as taps, _counter() as counter, reader.keeping():
        on_layer(taps, lambda layer, given, output: reader.ran(layer, output, counter))
        model.train()
        with torch.enable_grad():
            batch.forward(model)
    return Summary(
        model=type(model).__name__,
        layers=tuple(reader.rows(fields)),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def _counter() -> FlopCounterMode:
    """torch's counter, with the one kernel of attention that it does not know."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def count(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    return FlopCounterMode(display=False, custom_mapping={attention: count})


def operations(model: nn.Module, inputs: Any) -> float:
    """Multiplications and additions of one forward pass of one example, in evaluation.

    >>> operations(nn.Linear(12, 5), (12,))
    120.0
    """
    batch = _batch(model, inputs)
    with Taps(model), _counter() as counter, torch.no_grad():
        model.eval()
        batch.forward(model)
    return float(counter.get_total_flops() / batch.examples)


class _Reader:
    """Reads off what each layer costs, from what had been counted when the one before it ended."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.model = model
        self.examples = batch.examples
        own = (*model.parameters(), *model.buffers(), *batch.inputs)
        self.weights = {_place(tensor) for tensor in own}
        self.kept: list[float] = [0.0]
        self.flops = 0
        self.counted: set[int] = set()
        self.found: list[tuple[Layer, tuple[int, ...], int, float, float]] = []
        self.alive: list[Tensor] = []

    def keeping(self) -> saved_tensors_hooks:
        """Note every tensor that autograd keeps; those of the weights are no activations."""

        def keep(tensor: Tensor) -> Tensor:
            place = _place(tensor)
            if place not in self.weights:
                self.weights.add(place)
                self.alive.append(tensor)  # so that its place is not taken by another
                self.kept[-1] += tensor.untyped_storage().nbytes()
            return tensor

        return saved_tensors_hooks(keep, lambda tensor: tensor)

    def ran(self, layer: Layer, output: Tensor, counter: FlopCounterMode) -> None:
        total = counter.get_total_flops()
        parameters = 0
        for parameter in layer.module.parameters() if layer.module is not None else ():
            if id(parameter) not in self.counted:
                self.counted.add(id(parameter))
                parameters += parameter.numel()
        flops, self.flops = (total - self.flops) / self.examples, total
        memory = self.kept[-1] / self.examples
        self.kept.append(0.0)
        self.found.append((layer, tuple(output.shape[1:]), parameters, flops, memory))

    def rows(self, fields: dict[str, float]) -> list[LayerSummary]:
        rows = [
            LayerSummary(
                name=layer.name,
                kind=layer.kind,
                shape=shape,
                parameters=parameters,
                flops=flops,
                memory=memory,
                field=fields.get(layer.name),
            )
            for layer, shape, parameters, flops, memory in self.found
        ]
        for name, parameter in self.model.named_parameters():
            if id(parameter) not in self.counted:  # held by a module that is no layer: a token
                self.counted.add(id(parameter))
                rows.append(
                    LayerSummary(
                        name=name,
                        kind="Parameter",
                        shape=tuple(parameter.shape),
                        parameters=parameter.numel(),
                        flops=0.0,
                        memory=0.0,
                        field=None,
                    )
                )
        return rows


def short(number: float) -> str:
    """A number with its unit, three digits long.

    >>> short(25_557_032), short(950.0)
    ('25.6 M', '950 ')
    """
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g} "


def short_bytes(number: float) -> str:
    """Bytes with their unit, three digits long.

    >>> short_bytes(3 * 2**20)
    '3 MiB'
    """
    for size, unit in BYTES:
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"


def _batch(model: nn.Module, inputs: Any) -> Batch:
    if isinstance(inputs, Sequence) and inputs and all(isinstance(size, int) for size in inputs):
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
        zeros = torch.zeros((EXAMPLES, *inputs), dtype=like.dtype, device=like.device)
        return read_batch(zeros, model=model, finite=False)
    return read_batch(inputs, model=model, finite=False)


def _fields(model: nn.Module, batch: Batch) -> dict[str, float]:
    """The receptive field of each layer; nothing where the inputs have no axis to see along."""
    if not any(tensor.ndim > 2 for tensor in batch.inputs):
        return {}
    try:
        profile = receptive_field(model, batch.args[0] if len(batch.args) == 1 else batch.args)
    except MeasurementError:
        return {}
    columns = [column for column in profile.values if column.startswith("size_")]
    return dict(zip(profile.layers, profile.values[columns[-1]], strict=True))


def _place(tensor: Tensor) -> int:
    """Where a tensor's memory is; on the meta device, where there is none, which it would be."""
    return int(tensor.untyped_storage()._cdata)


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
