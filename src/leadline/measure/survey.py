"""Survey: one training pass, and all that can be seen of every layer and parameter in it.

A forward and a backward pass of one batch carry most of what there is to know about a network
before it trains: how the signal's spread changes from layer to layer, how the gradient's does on
the way back, which units never speak, which parameters hear nothing, and which operations lie
between the outputs and the loss. Single measurements look at one of these more closely; this one
takes them all in a single pass, so that a check costs little more than a training step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.profile import Profile
from leadline.core.taps import Taps, plain_name, tensors_in
from leadline.measure.backward_graph import gradients_through, operations_between
from leadline.measure.batch import Loss, main_output, read_batch
from leadline.measure.layers import ACTIVATIONS, AFFINE, Layer, on_layer
from leadline.measure.magnitudes import norm_of, numbers_in, spread_of, tensor_norms
from leadline.measure.units.unit_axis import UnitAxis


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """One layer in one pass; `gradient` is None where none came back.

    `mean` and `std` are of all its outputs, `zeros` the share of outputs that are exactly 0,
    `gradient` the root mean square of the loss's gradient with respect to them. `silent` is, for
    an activation, the share of units (channels of an image, else features) whose output is the
    same for the whole batch, NaN for other layers. `saturated` is, for a sigmoid or tanh, the share
    of outputs within 2 % of an end of their range, where the slope is below 8 % of its largest.
    `looks` counts the outputs of one unit, over examples and positions.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    mean: float
    std: float
    zeros: float
    silent: float
    saturated: float
    looks: int
    gradient: float | None

    @property
    def is_activation(self) -> bool:
        """Whether it is a nonlinearity: `ReLU`, `relu`, `GELU` ..."""
        return is_activation(self.kind)

    @property
    def is_affine(self) -> bool:
        """Whether it is a dense layer or a convolution, a module or a function."""
        return _plain(self.kind) in _PLAIN_AFFINE


@dataclass(frozen=True, kw_only=True)
class ParameterRecord:
    """One parameter: its size, its spread and what the gradient says of it.

    `norm` and `gradient` are Euclidean norms; `gradient` is None where no gradient reached it.
    `constant` means that all its numbers are equal.
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    constant: bool
    trainable: bool
    gradient: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """What one pass showed: `layers` in the order in which they ran, `parameters` as they stand.

    `graph` names the backward operations from the loss down to the model's output, that of the
    output last. `gradients` holds the gradient of each trainable parameter by name. `entering` is
    the root mean square of what the first dense layer or convolution is given, None without one.
    `positions` says of each position of an output [B, T, ...] whether the loss depends on it.
    """

    loss: float
    outputs: Tensor
    layers: tuple[LayerRecord, ...]
    parameters: tuple[ParameterRecord, ...]
    graph: tuple[str, ...]
    gradients: Mapping[str, Tensor | None] = field(repr=False)
    unregistered: Mapping[str, bool]
    connected: bool
    entering: float | None
    positions: tuple[bool, ...]

    @property
    def profile(self) -> Profile:
        """The layers as a Profile, in depth order."""
        nan = math.nan
        return Profile(
            name="survey of one training pass",
            unit="1; gradient: loss per unit of output",
            reading="std and gradient should stay within a few powers of ten over the depth; "
            "a steady slope on a log scale is a signal that vanishes or explodes",
            layers=tuple(layer.name for layer in self.layers),
            values={
                "mean": tuple(layer.mean for layer in self.layers),
                "std": tuple(layer.std for layer in self.layers),
                "gradient": tuple(
                    nan if layer.gradient is None else layer.gradient for layer in self.layers
                ),
                "zeros": tuple(layer.zeros for layer in self.layers),
                "silent": tuple(layer.silent for layer in self.layers),
            },
        )


def survey(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    unregistered: Mapping[str, Tensor] | None = None,
    finite: bool = True,
) -> Survey:
    """Run one batch forward and backward and note what passes, in the mode the model is in.

    `unregistered` are tensors that should have been parameters; whether the gradient reaches them
    is told too. With `finite`, NaN among the inputs is an error. Cost: 1 forward-backward pass and
    one reading of every activation and gradient.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> seen = survey(model, (torch.ones(4, 2), torch.ones(4, 1)), loss=nn.functional.mse_loss)
    >>> [layer.name for layer in seen.layers], seen.graph
    (['0', '1', '2'], ('MseLossBackward0', 'AddmmBackward0'))
    """
    given = read_batch(batch, model=model, finite=finite)
    wanted = {plain_name(n): p for n, p in model.named_parameters() if p.requires_grad}
    extra = {n: t for n, t in (unregistered or {}).items() if t.requires_grad}
    listener = _Listener()
    with Taps(model) as taps, torch.enable_grad():
        listener.attach(taps)
        outputs = given.forward(model)
        value = given.loss_of(outputs, loss)
        answer = main_output(outputs)
        graph = operations_between(value, answer)
        listener.follow_positions(taps, answer)
        gradients = gradients_through(value, [*wanted.values(), *extra.values()])
    reached = dict(zip([*wanted, *extra], gradients, strict=True))
    own = {name: reached[name] for name in wanted}
    return Survey(
        loss=float(value.detach()),
        outputs=answer.detach(),
        layers=listener.records(),
        parameters=_parameters(model, own),
        graph=graph,
        gradients=own,
        unregistered={name: reached[name] is not None for name in extra},
        connected=value.requires_grad and any(entry is not None for entry in gradients),
        entering=float(listener.entering) if listener.entering is not None else None,
        positions=tuple(listener.positions.tolist()) if listener.positions is not None else (),
    )


def is_activation(kind: str) -> bool:
    """Whether a layer's kind, a class's or a function's name, is that of a nonlinearity.

    >>> is_activation("LeakyReLU"), is_activation("gelu"), is_activation("Linear")
    (True, True, False)
    """
    return _plain(kind) in _PLAIN_ACTIVATIONS


def _plain(kind: str) -> str:
    return kind.lower().replace("_", "")


_PLAIN_AFFINE = {
    name.replace("_", "") for name in AFFINE if name.startswith(("linear", "conv", "addmm"))
} | {"conv1d", "conv2dsame", "stdconv2d", "stdconv2dsame", "scaledstdconv2d", "dense"}

_SIGMOIDAL = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}  # kind -> the ends of its range
SATURATED_SHARE = 0.02  # of the range; a sigmoid's slope there is 0.0196, 8 % of 0.25

_PLAIN_ACTIVATIONS = {name.replace("_", "") for name in ACTIVATIONS} | {
    "newgeluactivation",
    "geluactivation",
    "fastgeluactivation",
    "quickgeluactivation",
    "gelutanh",
    "swish",
    "rrelu",
    "softshrink",
    "tanhshrink",
    "threshold",
}


class _Listener:
    """Gathers each layer's figures as tensors on the device; they are fetched once, at the end."""

    def __init__(self) -> None:
        self._layers: list[tuple[Layer, tuple[int, ...]]] = []
        self._figures: list[Tensor] = []
        self._looks: list[int] = []
        self._axis = UnitAxis()
        self._gradients: dict[int, Tensor] = {}
        self.entering: Tensor | None = None
        self.positions: Tensor | None = None

    def follow_positions(self, taps: Taps, answer: Tensor) -> None:
        if answer.ndim < 3:
            return
        others = [axis for axis in range(answer.ndim) if axis != 1]

        def came_back(gradient: Tensor) -> None:
            self.positions = torch.linalg.vector_norm(gradient, ord=math.inf, dim=others) > 0

        taps.hook(answer, came_back)

    def attach(self, taps: Taps) -> None:
        def heard(layer: Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
            number = len(self._layers)
            self._layers.append((layer, tuple(output.shape)))
            axis = self._axis.of(layer, inputs, output)
            self._looks.append(output.numel() // max(output.shape[axis], 1) if output.ndim else 1)
            self._figures.append(_figures(output.detach(), kind=layer.kind, axis=axis))
            if self.entering is None and _plain(layer.kind) in _PLAIN_AFFINE:
                given = next((t for t in tensors_in(inputs) if t.is_floating_point()), None)
                if given is not None and given.numel():
                    self.entering = norm_of(given.detach()) / math.sqrt(given.numel())

            def came_back(gradient: Tensor) -> None:
                self._gradients[number] = norm_of(gradient) / math.sqrt(max(gradient.numel(), 1))

            taps.hook(output, came_back)

        on_layer(taps, heard)

    def records(self) -> tuple[LayerRecord, ...]:
        if not self._layers:
            return ()
        figures = torch.stack(self._figures).tolist()
        numbers = list(self._gradients)
        sizes = torch.stack([self._gradients[n] for n in numbers]).tolist() if numbers else []
        gradients = dict(zip(numbers, sizes, strict=True))
        return tuple(
            LayerRecord(
                name=layer.name,
                kind=layer.kind,
                shape=shape,
                mean=mean,
                std=std,
                zeros=zeros,
                silent=silent,
                saturated=saturated,
                looks=self._looks[n],
                gradient=gradients.get(n),
            )
            for n, ((layer, shape), (mean, std, zeros, silent, saturated)) in enumerate(
                zip(self._layers, figures, strict=True)
            )
        )


def _figures(output: Tensor, *, kind: str, axis: int) -> Tensor:
    """Mean, std, shares of zeros, silent units, saturated: one small tensor on the device."""
    if output.is_floating_point() and output.dtype in (torch.float16, torch.bfloat16):
        output = output.float()
    std, mean = spread_of(output)
    nan = torch.full_like(mean, math.nan)
    zeros = silent = saturated = nan
    if is_activation(kind) and output.ndim > 1:
        zeros = 1 - torch.count_nonzero(output) / output.numel()
        silent = _silent(output, axis)
    if ends := _SIGMOIDAL.get(_plain(kind)):
        margin = SATURATED_SHARE * (ends[1] - ends[0])
        beyond = (output < ends[0] + margin) | (output > ends[1] - margin)
        saturated = torch.count_nonzero(beyond) / output.numel()
    return torch.stack([mean, std, zeros, silent, saturated]).float()


def _silent(output: Tensor, axis: int) -> Tensor:
    others = [d for d in range(output.ndim) if d != axis]
    if math.prod(output.shape[d] for d in others) < 2:  # one look says nothing of a unit
        return torch.full((), math.nan, device=output.device)
    low, high = output.amin(dim=others), output.amax(dim=others)
    return (low == high).float().mean()


def _parameters(
    model: nn.Module, gradients: Mapping[str, Tensor | None]
) -> tuple[ParameterRecord, ...]:
    named = [(plain_name(n), p.detach()) for n, p in model.named_parameters() if p.numel()]
    if not named:
        return ()
    norms = tensor_norms([tensor for _, tensor in named])
    extremes = torch.stack(
        [torch.stack(torch.aminmax(numbers_in(t))).float().cpu() for _, t in named]
    ).tolist()
    present = {name: entry for name, entry in gradients.items() if entry is not None}
    reached = dict(zip(present, tensor_norms(list(present.values())), strict=True))
    return tuple(
        ParameterRecord(
            name=name,
            shape=tuple(tensor.shape),
            norm=norm,
            constant=low == high,
            trainable=name in gradients,
            gradient=reached.get(name),
        )
        for (name, tensor), norm, (low, high) in zip(named, norms, extremes, strict=True)
    )
