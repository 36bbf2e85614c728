"""What every layer did over the training: maps with a row per layer and a column per time.

A curve shows one number over time; whether signals and gradients reach every layer shows in all of
them at once. The rows run from the input at the top to the output at the bottom; the colour is the
value, mostly on a logarithmic scale: what fades or explodes with depth is a slope of colours from
top to bottom, what changes in time one from left to right. The colours are viridis: its brightness
rises evenly and which every kind of colour vision can order (Smith and van der Walt, 2015).
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leadline.report.figures import BOTTOM, LETTER, RIGHT, WIDTH, svg, text_at
from leadline.report.markup import coordinate, element, escape, figure, prose, section
from leadline.report.numbers import count, number, percent
from leadline.report.scales import Scale, tick_text

Row = dict[str, Any]
Values = NDArray[np.float64]

VIRIDIS = (
    *("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c"),
    *("#28ae80", "#5ec962", "#addc30", "#fde725"),
)
"""Colours from low to high, evenly spaced."""

COLUMNS = 240
"""Times a map shows, at most: more than one to two pixels of the figure would not be seen."""

TOP = 34.0
"""Room above a map for the key to its colours, in units of about a pixel."""

ROW, LOWEST, HIGHEST = 15.0, 120.0, 300.0
"""Height of a row where there is room, and of a map at least and at most."""

LABEL = 13.0
"""Height that a layer's name needs."""

NAME = 18
"""Letters of a layer's name that are shown, from its end."""

OUTER = 0.01
"""Share of the values at either end that do not stretch the scale."""


ZEROS = 0.01
"""A layer with fewer zeros than this share has them by rounding."""


@dataclass(frozen=True, kw_only=True)
class LayerMap:
    """One quantity of every layer that has it: `values` is [layers, steps], NaN where missing."""

    layers: tuple[str, ...]
    steps: tuple[int, ...]
    values: Values


def layer_map(rows: Sequence[Row], column: str) -> LayerMap:
    """Gather one column of the journal's watch rows; layers that never have it are left out.

    >>> rows = [{"step": 2, "layers": ["a", "b"], "values": {"std": [1.0, None]}}]
    >>> found = layer_map(rows, "std")
    >>> found.layers, found.steps, found.values.tolist()
    (('a',), (2,), [[1.0]])
    """
    layers = list(dict.fromkeys(layer for row in rows for layer in row["layers"]))
    place = {layer: index for index, layer in enumerate(layers)}
    values = np.full((len(layers), len(rows)), np.nan)
    for time, row in enumerate(rows):
        for layer, value in zip(row["layers"], row["values"].get(column, ()), strict=False):
            values[place[layer], time] = math.nan if value is None else float(value)
    having = ~np.isnan(values).all(axis=1)
    return LayerMap(
        layers=tuple(layer for layer, has in zip(layers, having, strict=True) if has),
        steps=tuple(row["step"] for row in rows),
        values=values[having],
    )


def depth_section(history: Sequence[Row]) -> str:
    """The maps of a run's journal."""
    rows = sorted((row for row in history if row["event"] == "watch"), key=lambda row: row["step"])
    if not rows:
        text = "The journal of this run does not tell what its layers did: it was not watched."
        return section("Through the depth", prose(text), anchor="depth")
    last = max(row["step"] for row in history if row["event"] in ("step", "watch"))
    drawn = [
        _figure(layer_map(rows, "std"), title="spread of the activations", caption=SPREAD),
        _figure(layer_map(rows, "gradient_norm"), title="gradient norm", caption=GRADIENT),
        _figure(layer_map(rows, "update_ratio"), title="update ratio", caption=UPDATE),
    ]
    dead = _where_zeros(layer_map(rows, "dead"), layer_map(rows, "zeros"))
    if (np.nan_to_num(dead.values) > 0).any():
        drawn.append(_figure(dead, title="dead units", caption=DEAD, shares=True))
    reading = (
        f"What every layer did, looked at in {count(len(rows))} of {count(last)} steps. A row is a "
        "layer, from the input at the top to the output at the bottom; time runs to the right, and "
        "the brighter, the higher, on a logarithmic scale."
    )
    if dead.layers and len(drawn) == 3:
        reading += " No layer had a unit that was zero for every example."
    grid = f'<div class="charts">{"".join(drawn)}</div>'
    return section("Through the depth", prose(reading), grid, anchor="depth")


def _where_zeros(dead: LayerMap, zeros: LayerMap) -> LayerMap:
    """The layers that return zeros at all, as a ReLU does; in the others no unit can be dead."""
    able = np.nan_to_num(zeros.values).max(axis=1, initial=0.0) >= ZEROS
    layers = tuple(name for name, has in zip(dead.layers, able, strict=True) if has)
    return LayerMap(layers=layers, steps=dead.steps, values=dead.values[able])


SPREAD = (
    "Standard deviation of what each layer returns. Healthy is about the same brightness from top "
    "to bottom; a steady change with depth is a signal that fades or explodes."
)
GRADIENT = (
    "Length of the gradient of each layer's weights, after clipping. Rows that stay dark learn "
    "nothing; dark at the top and bright at the bottom is a gradient that vanishes on its way back."
)
UPDATE = (
    "How far one step moved the weights, as a part of their own length. About 0.001 is usual; "
    "much less is learning that hardly moves, much more is forgetting."
)
DEAD = (
    "Share of a layer's units that were zero for every example looked at, not logarithmic. Rows "
    "that turn bright and stay so hold units that no longer learn."
)


def _figure(values: LayerMap, *, title: str, caption: str, shares: bool = False) -> str:
    if not values.layers:
        return ""
    last = values.steps[-1]  # beyond it nothing was looked at
    drawing = draw_map(values, last=last, title=title, shares=shares)
    finite = np.where(np.isfinite(values.values), values.values, np.nan)[:, -1]
    if np.isnan(finite).all():
        return figure(drawing, caption=caption)
    write = percent if shares else number
    low, high = int(np.nanargmin(finite)), int(np.nanargmax(finite))
    span = f" At step {count(last)} between {write(finite[low])} ({values.layers[low]}) and "
    span += f"{write(finite[high])} ({values.layers[high]})."
    if finite[low] == finite[high]:
        span = f" At step {count(last)} {write(finite[low])} everywhere."
    return figure(drawing, caption=caption + span)


def draw_map(values: LayerMap, *, last: int, title: str, shares: bool = False) -> str:
    """A map over the steps up to `last`, with names, ticks and a key; `shares` are of 1.

    A value outside the scale has the colour of its end, as has 0 on a logarithmic one; what is not
    known has none.
    """
    names = [n if len(n) <= NAME else "…" + n[1 - NAME :] for n in values.layers]
    left = max(LETTER * max(map(len, names)) + 10, 40.0)
    height = min(max(ROW * len(names), LOWEST), HIGHEST)
    across = Scale(low=0, high=max(1, last), start=left, end=WIDTH - RIGHT)
    scale = _colour_scale(values.values, shares=shares)
    grid = _resampled(values, last)
    shown = _picture(scale, grid)
    box = {"x": left, "y": TOP, "width": WIDTH - RIGHT - left, "height": height}
    frame = {**box, "fill": "none", "stroke": "currentColor", "stroke-opacity": ".25"}
    parts = [
        text_at(title, 4, 16, anchor="start"),
        _key(scale, shares=shares),
        _image(shown, box),
        element("rect", frame),
        _names(names, values.layers, left=left, row=height / len(names)),
    ]
    bottom, ticks = TOP + height, []
    for value in across.ticks():
        x = across.place(value)
        ticks.append(f"M{coordinate(x)} {coordinate(bottom)}v5")
        parts.append(text_at(tick_text(value), x, bottom + 18, anchor="middle"))
    parts.append(
        element("path", {"d": "".join(ticks), "stroke": "currentColor", "stroke-opacity": ".3"})
    )
    parts.append(text_at("step", (left + WIDTH - RIGHT) / 2, bottom + BOTTOM - 6, anchor="middle"))
    return svg(
        WIDTH,
        bottom + BOTTOM,
        title=f"{title} of every layer over the steps",
        inside="".join(parts),
    )


def _names(names: Sequence[str], full: Sequence[str], *, left: float, row: float) -> str:
    """As many names as there is room for, from the first layer on."""
    every = max(1, math.ceil(LABEL / row))
    return "".join(
        text_at(
            names[index],
            left - 6,
            TOP + (index + 0.5) * row + 4,
            anchor="end",
            note=element("title", inside=escape(full[index])),
        )
        for index in range(0, len(names), every)
    )


def _key(scale: Scale, *, shares: bool) -> str:
    """The colours with the values at their ends, at the right above the map."""
    low, high = (
        tick_text(v, percent=True) if shares else number(v, digits=2)
        for v in (scale.low, scale.high)
    )
    width, end = 90.0, WIDTH - RIGHT - LETTER * len(high) - 6
    box = {"x": end - width, "y": 7.0, "width": width, "height": 10.0}
    ramp = np.linspace(0, 1, 64)[None]
    return (
        text_at(low, end - width - 6, 16, anchor="end")
        + _image(_coloured(ramp), box)
        + text_at(high, WIDTH - RIGHT, 16, anchor="end")
    )


def _colour_scale(values: Values, *, shares: bool) -> Scale:
    if shares:
        highest = math.ceil(round(100 * float(np.nanmax(values)), 6)) / 100
        return Scale(low=0, high=max(0.01, min(1.0, highest)), start=0, end=1)
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        return Scale(low=0.1, high=1, start=0, end=1, log=True)
    low, high = (float(v) for v in np.quantile(known, (OUTER, 1 - OUTER)))
    if high < 2 * low:  # nearly the same everywhere: not to be drawn as a contrast
        middle = math.sqrt(low * high)
        low, high = middle / 2, middle * 2
    return Scale(low=low, high=high, start=0, end=1, log=True)


def _resampled(values: LayerMap, last: int) -> Values:
    """The map on an even grid of times: each shows the sample that is nearest to it."""
    steps = np.asarray(values.steps) - 0.5  # step 1 is what lies between 0 and 1
    columns = min(COLUMNS, max(1, last))
    times = (np.arange(columns) + 0.5) * last / columns
    after = np.searchsorted(steps, times).clip(0, len(steps) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(times - steps[before] <= steps[after] - times, before, after)
    return values.values[:, nearest]


def _picture(scale: Scale, values: Values) -> NDArray[np.uint8]:
    known = ~np.isnan(values)
    inside = np.clip(np.where(known, values, scale.low), scale.low, scale.high)
    low, high = scale.low, scale.high
    if scale.log:
        inside, low, high = np.log(inside), math.log(low), math.log(high)
    colours = _coloured((inside - low) / (high - low))
    colours[..., 3] = np.where(known, 255, 0)
    return colours


def _coloured(shares: Values) -> NDArray[np.uint8]:
    """Red, green, blue and opacity for numbers from 0 to 1."""
    anchors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in VIRIDIS], dtype=float)
    places = np.linspace(0, 1, len(VIRIDIS))
    channels = [np.interp(shares, places, anchors[:, channel]) for channel in range(3)]
    opaque = np.full_like(shares, 255)
    return np.stack([*channels, opaque], axis=-1).round().astype(np.uint8)


def _image(pixels: NDArray[np.uint8], box: dict[str, float]) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG", optimize=True)
    data = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
    look = {"preserveAspectRatio": "none", "style": "image-rendering:pixelated"}
    return element("image", {**box, **look, "href": data})
