"""The theoretical receptive field: how much of the input a unit of each layer can see.

A convolution of kernel k, stride s and dilation d on units that see `size` inputs, `jump` apart:

    size <- size + (k - 1) d jump,    jump <- jump s,    start <- start - padding jump

and at a join the union of what comes together (Araujo, Norris and Sim 2019, "Computing Receptive
Fields of Convolutional Neural Networks", Distill, doi:10.23915/distill.00021). It is followed here
along the computation as it runs, so that any model can be asked: branches, dense connections,
upsampling, patches, tokens, windows and masks of attention (the file `reach`).

The surprising choice: an operation without a rule gives NaN from there on, with its name in the
profile's `reading`, rather than a guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core.errors import MeasurementError
from leadline.core.profile import Profile
from leadline.core.taps import Taps
from leadline.measure.batch import Batch, read_batch
from leadline.measure.layers import Layer, on_layer
from leadline.measure.receptive_fields.reach import Reach, ReachMode
from leadline.measure.receptive_fields.reach_rules import reach_rules

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
COLUMNS = ("size", "jump", "start", "seen")
READING = (
    "size is how many inputs along an axis the unit that sees most can see, padding counted as "
    "though the input went on; a size far below the objects to be told apart is too small; seen is "
    "what of it lies inside this input; jump is the distance between neighbouring units' fields, 0 "
    "where units have no place any more; start is where the first unit's field begins"
)


def receptive_field(model: nn.Module, inputs: Any, *, axes: Sequence[int] | None = None) -> Profile:
    """How much of the input a unit of each layer can see, by closed form.

    `inputs` is a batch or inputs alone, of which the first example of the first tensor counts; its
    numbers do not matter, its shape hardly. `axes` are the dimensions of that tensor in which a
    field has an extent: by default all after batch and channels, for whole-number inputs (tokens)
    all after the batch. Columns per axis (`length`; `height` and `width`; `depth`, `height` and
    `width`), in inputs: `size_height`, `jump_height`, `start_height`, `seen_height`; as read below.

    Measured in evaluation mode, since a batch norm's statistics are constants there. Norms that
    take statistics over an axis (instance, group) see all of it. A layer that the inputs do not
    reach sees 0. Raises MeasurementError for inputs without such an axis.

    Cost: one forward pass of one example, nothing of it for a model on the `meta` device, and 0.3
    to 2 s of bookkeeping for a hundred layers.

    How to read it: a unit decides by what it sees. Objects larger than `size` cannot be told apart
    by their whole; beyond the image (`size` above `seen`), more depth adds no more to see. What a
    unit really uses of its field is less: `effective_receptive_field`.

    Two convolutions of 3 see 5, the pooling between them doubles what the second adds:

    >>> model = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.MaxPool1d(2), nn.Conv1d(4, 1, 3))
    >>> profile = receptive_field(model, torch.zeros(1, 1, 16))
    >>> profile.column("size_length"), profile.column("jump_length")
    ((3.0, 4.0, 8.0), (1.0, 2.0, 2.0))
    """
    batch = read_batch(inputs, model=model, finite=False).first(1)
    image, places = _image(batch, axes)
    lengths = [image.shape[axis] for axis in places]
    names = AXES.get(len(places)) or tuple(f"axis{axis}" for axis in places)
    found: dict[str, Reach | None] = {}
    mode = ReachMode(image, places, reach_rules)

    def read(layer: Layer, given: tuple[Any, ...], output: Tensor) -> None:
        found[layer.name] = mode.of(output)

    with Taps(model) as taps, torch.no_grad():
        model.eval()
        on_layer(taps, read)
        with mode:
            batch.with_inputs(image, *batch.inputs[1:]).forward(model)
    rows = {name: _row(reach, lengths) for name, reach in found.items()}
    reasons: dict[str, str] = {}
    for layer, reach in found.items():
        if reach is not None and reach.unknown:
            reasons.setdefault(reach.unknown, layer)
    values = {
        f"{column}_{name}": tuple(row[len(COLUMNS) * axis + number] for row in rows.values())
        for axis, name in enumerate(names)
        for number, column in enumerate(COLUMNS)
    }
    unknown = "".join(f"; NaN from {layer!r} on: {why}" for why, layer in reasons.items())
    return Profile(
        name="theoretical receptive field",
        unit="inputs along an axis (pixels, tokens)",
        reading=READING + unknown,
        layers=tuple(rows),
        values=values,
    )


def spatial_axes(inputs: Tensor) -> tuple[int, ...]:
    """The dimensions in which inputs have an extent: after batch and channels, of tokens the batch.

    >>> spatial_axes(torch.zeros(8, 3, 32, 32)), spatial_axes(torch.zeros(8, 16, dtype=torch.long))
    ((2, 3), (1,))
    """
    return tuple(range(2 if inputs.is_floating_point() else 1, inputs.ndim))


def _image(batch: Batch, axes: Sequence[int] | None) -> tuple[Tensor, tuple[int, ...]]:
    """The tensor whose parts are seen, a copy (a model may write into it), and its axes."""
    if not batch.inputs:
        raise MeasurementError(
            expected="inputs with a tensor in them",
            received=f"{type(batch.args[0]).__name__ if batch.args else 'nothing'}",
            remedy="pass a batch of images, signals or tokens",
        )
    image = batch.inputs[0].clone()
    places = spatial_axes(image) if axes is None else tuple(axes)
    if not places or any(not 0 <= axis < image.ndim for axis in places):
        raise MeasurementError(
            expected="inputs with an axis to see along, such as (batch, channels, height, width)",
            received=f"inputs of shape {tuple(image.shape)}"
            + (f", axes {places}" if places else ""),
            remedy="name the dimensions that have an extent: axes=(1,) for (batch, time, features)",
        )
    return image, places


def _row(reach: Reach | None, lengths: Sequence[int]) -> list[float]:
    """The four numbers of each axis, for the unit that sees most."""
    row: list[float] = []
    for axis, length in enumerate(lengths):
        if reach is None:
            row += [0.0, 0.0, math.nan, 0.0]
            continue
        if reach.unknown:
            row += [math.nan] * len(COLUMNS)
            continue
        first, last = reach.bounds[2 * axis], -reach.bounds[2 * axis + 1]
        sees = ~torch.isinf(first) & ~torch.isinf(last)
        sizes = torch.where(sees, last - first + 1, 0)
        seen = torch.where(sees, last.clamp(max=length - 1) - first.clamp(min=0) + 1, 0)
        place = reach.dims[axis]
        one = place is not None and reach.shape[place] == 1  # a map of one unit keeps its jump
        jump = reach.jumps[axis] if one or max(first.numel(), last.numel()) > 1 else 0.0
        row += [float(sizes.max()), jump, float(first.min()), max(0.0, float(seen.max()))]
    return row
