"""How the training went: losses, accuracy, learning rate and gradient norm over the epochs.

Everything comes from the journal's rows. The raw training loss is drawn faint, because its jitter
is that of the batches; the mean over a moving window, centred so that it does not lag, is the line
to look at. Long curves are thinned so that extremes survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadline.report.figures import Series, line_chart
from leadline.report.markup import figure, prose, section
from leadline.report.numbers import number, percent, plural
from leadline.report.scales import extent

Row = dict[str, Any]
Values = NDArray[np.float64]

POINTS = 400
"""Points a curve is thinned to: about one per pixel of the figure."""

WINDOWS = 40
"""The moving mean's window is this part of the training."""

STEEP = 30.0
"""A quantity that changes by more than this factor is drawn on a logarithmic axis."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A quantity at positions counted in epochs."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]


def smooth(values: Sequence[float], *, window: int) -> list[float]:
    """The mean over `window` neighbours, fewer at the ends; it neither lags nor leads.

    >>> smooth([0, 3, 6, 3, 0], window=3)
    [1.5, 3.0, 4.0, 3.0, 1.5]
    """
    half = window // 2
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    place = np.arange(len(values))
    low = np.maximum(place - half, 0)
    high = np.minimum(place + half + 1, len(values))
    means: list[float] = ((total[high] - total[low]) / (high - low)).tolist()
    return means


def thin(curve: Curve, *, points: int = POINTS) -> Curve:
    """The curve with about `points` points; each piece keeps its lowest and its highest.

    >>> thin(Curve(xs=(0, 1, 2, 3, 4, 5), ys=(0, 9, 1, 1, -7, 1)), points=4)
    Curve(xs=(0, 1, 3, 4), ys=(0, 9, 1, -7))
    """
    if len(curve.xs) <= points:
        return curve
    ys = np.asarray(curve.ys)
    kept: list[int] = []
    for piece in np.array_split(np.arange(len(ys)), max(1, points // 2)):
        low, high = piece[ys[piece].argmin()], piece[ys[piece].argmax()]
        kept += sorted({int(low), int(high)})
    return Curve(xs=tuple(curve.xs[i] for i in kept), ys=tuple(curve.ys[i] for i in kept))


def curves_section(history: Sequence[Row], *, metric: str = "accuracy") -> str:
    """The charts of a run's journal."""
    steps = [row for row in history if row["event"] == "step"]
    validations = [row for row in history if row["event"] == "validation"]
    if not steps:
        return section(
            "The training", prose("The journal of this run has no steps."), anchor="training"
        )
    per_epoch = max((row["step"] for row in steps if row["epoch"] == 1), default=len(steps))
    drawn = [
        _losses(steps, validations, per_epoch=per_epoch),
        _metric(validations, metric, per_epoch=per_epoch),
        _simple(
            steps,
            "lr",
            per_epoch=per_epoch,
            title="learning rate",
            caption="The size of the optimizer's steps, as the schedule set it.",
        ),
        _simple(
            steps,
            "grad_norm",
            per_epoch=per_epoch,
            title="gradient norm",
            caption="The length of the whole gradient before clipping. Spikes are steps that "
            "clipping held back; a steady rise warns of divergence.",
        ),
    ]
    epochs = steps[-1]["epoch"]
    reading = (
        f"{plural(epochs, 'epoch')} of {plural(per_epoch, 'step')} each; "
        "an epoch is one pass over the training images."
    )
    grid = f'<div class="charts">{"".join(drawn)}</div>'
    return section("The training", prose(reading), grid, anchor="training")


def _losses(steps: Sequence[Row], validations: Sequence[Row], *, per_epoch: int) -> str:
    raw = _curve(steps, "loss", per_epoch)
    window = max(1, len(raw.ys) // WINDOWS) | 1
    mean = thin(Curve(xs=raw.xs, ys=tuple(smooth(raw.ys, window=window))))
    jagged = thin(raw)
    series = [
        Series(name="each step", xs=jagged.xs, ys=jagged.ys, mark="faint"),
        Series(name="training", xs=mean.xs, ys=mean.ys),
    ]
    held_out = _measured(validations, "loss", per_epoch)
    if held_out.xs:
        mark = Series(name="validation", xs=held_out.xs, ys=held_out.ys, color=1, mark="points")
        series.append(mark)
    if window == 1:
        series.pop(0)
    firm = [y for s in series if s.mark != "faint" for y in s.ys]
    drawing = line_chart(
        series,
        title="training and validation loss over the epochs",
        x_label="epoch",
        y_label="loss",
        log=min(firm) > 0 and max(firm) > STEEP * min(firm),
        x_range=(0.0, max(raw.xs)),
    )
    caption = (
        "Lower is better. A training loss still falling at the end asks for more epochs; "
        "a validation loss that rises while the training loss falls shows learning by heart."
    )
    if held_out.xs:
        caption += (
            " The two are not the same measure where images are augmented or labels smoothed: "
            "the training loss then stays the higher one."
        )
    return figure(drawing, caption=caption)


def _metric(validations: Sequence[Row], metric: str, *, per_epoch: int) -> str:
    measured = _measured(validations, metric, per_epoch)
    if not measured.xs:
        return ""
    series = Series(name="validation", xs=measured.xs, ys=measured.ys, color=1, mark="points")
    drawing = line_chart(
        [series],
        title=f"validation {metric} over the epochs",
        x_label="epoch",
        y_label=metric,
        percentages=True,
        x_range=(0.0, max(measured.xs)),
        y_range=_without_the_start(measured.ys),
    )
    best = max(measured.ys)
    place = measured.xs[measured.ys.index(best)]
    caption = (
        f"Measured after each epoch on images kept out of training: best {percent(best)} "
        f"after epoch {number(place)}, {percent(measured.ys[-1])} at the end."
    )
    if _without_the_start(measured.ys):
        caption += f" The beginning, from {percent(min(measured.ys))}, lies below the picture."
    return figure(drawing, caption=caption)


def _without_the_start(shares: Sequence[float]) -> tuple[float, float] | None:
    """The range of all but the lowest tenth, when that tenth would squeeze the rest to a line."""
    lowest, tenth, highest = min(shares), float(np.quantile(shares, 0.1)), max(shares)
    if tenth - lowest <= 2 * (highest - tenth) or tenth == highest:
        return None
    low, high = extent([tenth, highest])
    return (max(0.0, low), min(1.0, high))


def _simple(steps: Sequence[Row], key: str, *, per_epoch: int, title: str, caption: str) -> str:
    having = [row for row in steps if row.get(key) is not None]
    if not having:
        return ""
    curve = thin(_curve(having, key, per_epoch))
    low, high = min(curve.ys), max(curve.ys)
    steep = key != "lr" and low > 0 and high > STEEP * low
    drawing = line_chart(
        [Series(name="", xs=curve.xs, ys=curve.ys, color=2)],
        title=f"{title} over the epochs",
        x_label="epoch",
        y_label=title,
        log=steep,
        x_range=(0.0, max(curve.xs)),
    )
    span = (
        f" Between {number(low)} and {number(high)}."
        if low < high
        else f" {number(low)} throughout."
    )
    return figure(drawing, caption=caption + span)


def _curve(rows: Sequence[Row], key: str, per_epoch: int) -> Curve:
    return Curve(
        xs=tuple(row["step"] / per_epoch for row in rows),
        ys=tuple(float(row[key]) for row in rows),
    )


def _measured(rows: Sequence[Row], key: str, per_epoch: int) -> Curve:
    having = [row for row in rows if key in row["metrics"]]
    return Curve(
        xs=tuple(row["step"] / per_epoch for row in having),
        ys=tuple(float(row["metrics"][key]) for row in having),
    )
