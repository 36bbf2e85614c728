"""A trial as pictures: the loss with and without the remedy, and the error each ended with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from leadline.doctor.curves_in_words import Heights, losses_of
from leadline.doctor.diagnosis_words import number_in_words, outcome
from leadline.report.figures import (
    BOTTOM,
    LEFT,
    RIGHT,
    WIDTH,
    Series,
    line_chart,
    paint,
    svg,
    text_at,
)
from leadline.report.markup import coordinate, element, figure
from leadline.report.scales import Scale, tick_text

Plain = Mapping[str, Any]

ARMS = {"without": ("as it is", 1), "treated": ("with the remedy", 0)}
"""What the arms are called, and their colours."""

BAR, GAP, TOP = 30.0, 14.0, 40.0
"""Height of a bar of the errors, the room below it, and that above the first."""

MOST = 1.5
"""Error at which a bar ends: what is worse than knowing nothing needs no scale."""


def trial_figures(trial: Plain) -> str:
    """Both curves and both errors of a trial, side by side where there is room."""
    return f'<div class="charts">{_curves(trial)}{_errors(trial)}</div>'


def _curves(trial: Plain) -> str:
    series, said = [], []
    known = {name: losses_of(trial[name]) for name in ARMS}
    heights = Heights.over(*known.values())
    for name, (label, color) in ARMS.items():
        arm, losses = trial[name], known[name]
        steps = [1.0 + index * arm["every"] for index in range(len(losses))]
        series.append(Series(name=label, xs=steps, ys=losses, color=color))
        if arm["ended"]:
            said.append(f"The training {label} stopped: {arm['ended']}.")
    if not any(s.xs for s in series):
        return ""
    steps_drawn = max(x for s in series for x in s.xs)
    air = 0.0 if heights.log else 0.05 * (heights.high - heights.low)
    drawing = line_chart(
        series,
        title="loss over the steps of the trial, with and without the remedy",
        x_label="step",
        y_label="loss",
        log=heights.log,
        x_range=(1.0, max(2.0, steps_drawn)),
        y_range=(heights.low - air, heights.high + air) if heights.cut else None,
    )
    caption = (
        f"Two trainings of {trial['steps']:,} steps from the same start on the same batches; "
        f"only one has this change: {trial['remedy']}."
    )
    if heights.cut:
        caption += f" Losses above {number_in_words(heights.high)} are cut off."
    return figure(drawing, caption=" ".join([caption, *said]))


def _errors(trial: Plain) -> str:
    values = {name: float(trial[name]["error"]) for name in ARMS}
    finite = [value for value in values.values() if math.isfinite(value)]
    high = min(MOST, max([1.0, *finite])) * 1.05
    across = Scale(low=0.0, high=high, start=LEFT + 60, end=WIDTH - RIGHT)
    bottom = TOP + len(ARMS) * (BAR + GAP)
    parts = [_ground(across, bottom=bottom, known_nothing=trial)]
    for index, (name, (label, color)) in enumerate(ARMS.items()):
        y = TOP + index * (BAR + GAP)
        value = values[name]
        end = across.place(min(value, high) if math.isfinite(value) else high)
        box = {"x": across.start, "y": y, "width": max(1.0, end - across.start), "height": BAR}
        look = {"style": paint("fill", color), "fill-opacity": ".85", "rx": 3}
        parts.append(element("rect", {**box, **look}))
        first, _, rest = label.partition(" the ")
        parts.append(text_at(first, across.start - 8, y + (12 if rest else 19), anchor="end"))
        if rest:
            parts.append(text_at(f"the {rest}", across.start - 8, y + 26, anchor="end"))
        inside = end - across.start > 70
        parts.append(_value(number_in_words(value), end, y + 20, inside=inside))
    height = bottom + BOTTOM
    drawing = svg(WIDTH, height, title="error with and without the remedy", inside="".join(parts))
    said = outcome(trial)
    caption = f"Error: {trial['measured']}. {said[0].upper()}{said[1:]}."
    return figure(drawing, caption=caption)


def _ground(across: Scale, *, bottom: float, known_nothing: Plain) -> str:
    lines, labels = [], []
    for value in across.ticks():
        x = across.place(value)
        lines.append(f"M{coordinate(x)} {coordinate(TOP - 6)}V{coordinate(bottom)}")
        labels.append(text_at(tick_text(value), x, bottom + 16, anchor="middle"))
    grid = element("path", {"d": "".join(lines), "stroke": "currentColor", "stroke-opacity": ".14"})
    x = across.place(1.0)
    dashes = {"stroke": "currentColor", "stroke-dasharray": "5 4", "stroke-opacity": ".7"}
    line = element(
        "path", {"d": f"M{coordinate(x)} {coordinate(TOP - 6)}V{coordinate(bottom)}", **dashes}
    )
    unit = (
        "loss as at the start" if known_nothing["measured"].startswith("loss") else "knows nothing"
    )
    labels.append(text_at(unit, x, TOP - 14, anchor="end" if x > WIDTH - 60 else "middle"))
    labels.append(text_at("error", 4, 16, anchor="start"))
    middle = (across.start + across.end) / 2
    labels.append(text_at("0 is perfect", middle, bottom + 36, anchor="middle"))
    return grid + line + "".join(labels)


def _value(text: str, x: float, y: float, *, inside: bool) -> str:
    style = "fill:var(--on-strong,#fff)" if inside else "fill:currentColor"
    place = {"x": x - 8 if inside else x + 8, "y": y, "text-anchor": "end" if inside else "start"}
    return element("text", {**place, "style": style, "font-weight": "600"}, inside=text)
