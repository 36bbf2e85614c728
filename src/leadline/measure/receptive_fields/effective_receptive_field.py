"""The effective receptive field: how much of what a unit can see it really uses.

The gradient of one unit with respect to the input says how much each pixel counts for it:

    g(u, v) = sqrt( mean over examples and input channels of (d y_centre / d x(u, v))^2 )

It is not spread evenly over the theoretical field. Many paths lead from the middle to the unit and
few from the border, so that g is close to a Gaussian whose width grows like the square root of the
depth, while the theoretical field grows like the depth (Luo, Li, Urtasun and Zemel 2016,
arXiv:1701.04128). One backward pass serves all examples, since the gradients of different ones do
not mix. One choice may surprise: y_centre is not the sum over the unit's channels but a random
combination of them, another for each example, whose mean square is the sum of the channels'
squares. Their plain sum is a constant behind a layer norm, and has no gradient at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.names import look_up
from leadline.core.taps import ROOT, Call, Taps, tensors_in
from leadline.measure.batch import Batch, main_output, read_batch
from leadline.measure.layers import on_layer
from leadline.measure.receptive_fields.receptive_field import spatial_axes

THRESHOLD = 1 - 0.9545  # of the maximum: what the paper counts as inside the effective field


@dataclass(frozen=True, kw_only=True, eq=False)
class EffectiveField:
    """How much each input counts for one unit of `layer`.

    `map` is g, one number per place, in the units of the gradient; `size` the side of the square
    (cube, stretch) with as many places as count at least 4.55 % of the largest; `radius` per axis
    two standard deviations of g taken as a distribution, `centre` its mean, all in inputs; `share`
    is `size` against the side of the input.
    """

    layer: str
    position: tuple[int | None, ...]
    map: Tensor
    size: float
    centre: tuple[float, ...]
    radius: tuple[float, ...]
    share: float


def effective_receptive_field(
    model: nn.Module,
    inputs: Any,
    *,
    layer: str | None = None,
    position: Sequence[int | None] | None = None,
    axes: Sequence[int] | None = None,
    seed: int = 0,
) -> EffectiveField:
    """How much of its receptive field the middle unit of a layer really uses.

    `inputs` is a batch or inputs alone; eight or more examples, noise or data, give a smooth map.
    `layer` is a layer's or module's name, by default the last one whose units still have places (or
    the output). `position` says which unit: an index for each dimension of the layer's output after
    the batch, None where all are taken, as of the channels. By default the middle one: of
    (B, C, H, W) it is (None, H // 2, W // 2), of (B, T, D) for images the token in the middle of
    the square that the last tokens make, for other inputs T // 2. `axes` as in `receptive_field`;
    `seed` draws the combination of the channels.

    Measured in evaluation mode: batch norm's batch statistics would mix the examples. Raises
    MeasurementError where no gradient comes back to the inputs: whole numbers, a dead unit.

    Cost: one forward-backward pass of the batch (the backward without the weights' gradients).

    How to read it: `share` is the part of the image's side that counts. Much below the size of what
    is to be seen, more depth helps little (it adds like a square root); stride, dilation and
    training enlarge it. `radius` above half the image means that the field is cut off.

    A chain of n averages over k is the n-fold convolution of a box: variance n (k^2 - 1) / 12.

    >>> box = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    >>> _ = nn.init.constant_(box.weight, 1 / 3)
    >>> model = nn.Sequential(*[box] * 6)
    >>> field = effective_receptive_field(model, torch.zeros(1, 1, 41), layer="0 (call 6)")
    >>> round(field.centre[0], 4), round(field.radius[0], 4), 2 * (6 * 8 / 12) ** 0.5
    (20.0, 4.0, 4.0)
    """
    batch = read_batch(inputs, model=model)
    image = _differentiable(batch)
    places = spatial_axes(image) if axes is None else tuple(axes)
    if not places:
        raise MeasurementError(
            expected="inputs with an axis to see along, such as (batch, channels, height, width)",
            received=f"inputs of shape {tuple(image.shape)}",
            remedy="name the dimensions that have an extent: axes=(1,) for (batch, time, features)",
        )
    with Taps(model) as taps, torch.enable_grad():
        model.eval()
        # A copy: a model may write into its input, which a leaf does not allow.
        given = batch.with_inputs(image.clone(), *batch.inputs[1:])
        name, output = _output(taps, model, given, layer, len(places))
        unit = _middle(output, places) if position is None else tuple(position)
        gradient = _gradient(output, unit, image, name, seed)
    return _describe(name, unit, gradient, places)


def _output(
    taps: Taps, model: nn.Module, batch: Batch, layer: str | None, axes: int
) -> tuple[str, Tensor]:
    """What the named layer returned, or the last one whose units have places, with its name."""
    kept: dict[str, Tensor] = {}
    names: dict[str, int] = {}

    def keep(name: str, output: Tensor) -> None:
        names[name] = len(names)
        if name == layer or (layer is None and _has_places(output, axes)):
            if layer is None:
                kept.clear()
            kept[name] = output.clone()  # as it is now: a later module may overwrite it

    on_layer(taps, lambda ran, given, output: keep(ran.name, output))
    if layer is not None:
        taps.on_output(lambda call, given, output: _keep_call(keep, call, output))
    answer = batch.forward(model)
    if layer is not None:
        look_up(layer, names, kind="layer")
    return kept.popitem() if kept else (ROOT, main_output(answer))


def _keep_call(keep: Callable[[str, Tensor], None], call: Call, output: Any) -> None:
    """A module that contains others: named as the layers are."""
    name = call.name if call.number == 0 else f"{call.name} (call {call.number + 1})"
    tensor = next((t for t in tensors_in(output) if t.is_floating_point()), None)
    if tensor is not None:
        keep(name, tensor)


def _differentiable(batch: Batch) -> Tensor:
    image = batch.inputs[0] if batch.inputs else None
    if image is None or not image.is_floating_point():
        kind = "no tensor" if image is None else str(image.dtype).removeprefix("torch.")
        raise MeasurementError(
            expected="inputs of floating numbers, since a gradient by them is taken",
            received=f"inputs of {kind}",
            remedy="convert images with .float(); for tokens pass the part of the model after its "
            "embedding, and the embedded tokens",
        )
    return image.detach().clone().requires_grad_()


def _has_places(output: Tensor, axes: int) -> bool:
    """Whether the units of an output still have a place: a map larger than one, or tokens."""
    if output.ndim == axes + 2:
        return math.prod(output.shape[2:]) > 1
    return axes > 1 and output.ndim == 3 and output.shape[1] > 1


def _middle(output: Tensor, places: tuple[int, ...]) -> tuple[int | None, ...]:
    """The position of the unit in the middle, all channels of it."""
    shape, axes = output.shape[1:], len(places)
    if len(shape) == 1:
        return (None,)
    if len(shape) == 2 and (axes == 2 or places == (1,)):  # tokens, channels last
        side = math.isqrt(shape[0]) if axes == 2 else 0
        return ((shape[0] - side**2) + (side // 2) * (side + 1) if side else shape[0] // 2, None)
    if len(shape) == axes + 1:
        return (None, *(length // 2 for length in shape[1:]))
    raise MeasurementError(
        expected="an output whose middle is known: (batch, channels, places ...) or tokens",
        received=f"an output of shape {tuple(output.shape)} for inputs with {axes} axes",
        remedy="say which with position=, an index per dimension after the batch, None for all",
    )


def _gradient(
    output: Tensor, unit: tuple[int | None, ...], image: Tensor, name: str, seed: int
) -> Float[Tensor, "..."]:
    shape = output.shape[1:]
    wrong = len(unit) != len(shape) or any(
        place is not None and not -length <= place < length
        for place, length in zip(unit, shape, strict=False)
    )
    if wrong:
        raise MeasurementError(
            expected=f"a position inside the output of {name!r}, per example {tuple(shape)}",
            received=f"position {unit}",
            remedy="give an index for each of its dimensions, None for those to take whole",
        )
    places = tuple(slice(None) if place is None else place for place in unit)
    chosen = output[(slice(None), *places)]
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(chosen.shape, generator=generator, dtype=torch.float64)
    value = (chosen * weights.to(chosen)).sum()
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, image, allow_unused=True)
    if gradient is None or not bool(gradient.any()) or not bool(torch.isfinite(gradient).all()):
        how = "none" if gradient is None else "0 everywhere" if not gradient.any() else "not finite"
        raise MeasurementError(
            expected=f"a gradient from the unit {unit} of {name!r} back to the inputs",
            received=f"a gradient that is {how}",
            remedy="look for a detach(), dead units or NaN before that layer; try other inputs",
        )
    return gradient


def _describe(
    name: str, unit: tuple[int | None, ...], gradient: Tensor, places: tuple[int, ...]
) -> EffectiveField:
    """Size, centre and radius of the root mean square of the gradients."""
    others = [dim for dim in range(gradient.ndim) if dim not in places]
    importance = gradient.double().square().mean(others).sqrt()
    inside = int((importance >= THRESHOLD * importance.max()).sum())
    size = inside ** (1 / len(places))
    weight = importance / importance.sum()
    centre: list[float] = []
    radius: list[float] = []
    for axis, length in enumerate(importance.shape):
        along = weight.movedim(axis, 0).reshape(length, -1).sum(1)
        index = torch.arange(length, dtype=along.dtype, device=along.device)
        mean = (along * index).sum()
        centre.append(float(mean))
        radius.append(2 * float((along * (index - mean).square()).sum().sqrt()))
    return EffectiveField(
        layer=name,
        position=unit,
        map=importance,
        size=size,
        centre=tuple(centre),
        radius=tuple(radius),
        share=size / importance.numel() ** (1 / len(places)),
    )
