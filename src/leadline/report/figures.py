"""Figures as SVG text: lines over time, a heat map, a reliability diagram, a bar.

Pure functions from numbers to a drawing that scales, prints and needs no script. Colours are the
page's custom properties with the light value as fallback, so a drawing also stands alone. They are
Okabe and Ito's, told apart by every kind of colour vision (Color Universal Design, 2008); line
styles and labels repeat what the colour says. Text takes the colour of the page around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from leadline.report.markup import coordinate, element, escape
from leadline.report.numbers import count, percent
from leadline.report.scales import Scale, extent, tick_text

PALETTE = ("#0072b2", "#d55e00", "#007a5a", "#a3508f")
"""Okabe and Ito's blue, vermillion, green and purple, the last two darker for thin lines."""

WIDTH, HEIGHT = 480.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 20.0, 36.0, 44.0
"""A chart and the margins that hold its labels, in units of about a pixel."""

DOT = 3.0
"""Radius of a point with its line: what a mark at the plot's edge needs beyond it."""

LETTER = 6.6
"""Width of an average letter at the figures' font size, to lay text out without a font."""

Mark = Literal["line", "faint", "points", "dashed"]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart: where it runs, what it is called and how it is drawn."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: int = 0
    mark: Mark = "line"


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str = "",
    log: bool = False,
    percentages: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> str:
    """Lines over a common axis, with ticks, units and a legend; gaps where values are not finite.

    A faint series does not stretch the axis: what lies beyond is cut off, as with a given range.
    """
    firm = [s for s in series if s.mark != "faint"] or series
    low, high = y_range or extent((y for s in firm for y in s.ys), log=log)
    if percentages and y_range is None:
        low, high = max(0.0, low), min(1.0, high)
    left, right = x_range or _x_extent(series)
    across = Scale(low=left, high=right, start=LEFT, end=WIDTH - RIGHT)
    up = Scale(low=low, high=high, start=HEIGHT - BOTTOM, end=TOP, log=log)
    label = f"{y_label} (logarithmic)" if log and y_label else y_label
    parts = [
        _axes(across, up, x_label=x_label, y_label=label, percentages=percentages),
        _clipped("".join(_draw(s, across, up) for s in series)),
        _legend(series),
    ]
    return svg(WIDTH, HEIGHT, title=title, inside="".join(parts))


def _x_extent(series: Sequence[Series]) -> tuple[float, float]:
    xs = [x for s in series for x in s.xs] or [0.0, 1.0]
    low, high = min(xs), max(xs)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _axes(across: Scale, up: Scale, *, x_label: str, y_label: str, percentages: bool) -> str:
    bottom = HEIGHT - BOTTOM
    lines, labels = [], []
    for value in up.ticks():
        y = up.place(value)
        lines.append(f"M{coordinate(LEFT)} {coordinate(y)}H{coordinate(WIDTH - RIGHT)}")
        labels.append(text_at(tick_text(value, percent=percentages), LEFT - 8, y + 4, anchor="end"))
    for value in across.ticks():
        x = across.place(value)
        labels.append(text_at(tick_text(value), x, bottom + 18, anchor="middle"))
        lines.append(f"M{coordinate(x)} {coordinate(bottom)}v5")
    labels.append(text_at(x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, anchor="middle"))
    if y_label:
        labels.append(text_at(y_label, 4, 16, anchor="start"))
    grid = element("path", {"d": "".join(lines), "stroke": "currentColor", "stroke-opacity": ".14"})
    return grid + "".join(labels)


def _draw(series: Series, across: Scale, up: Scale) -> str:
    points = [
        (across.place(x), up.place(y)) if math.isfinite(y) and (y > 0 or not up.log) else None
        for x, y in zip(series.xs, series.ys, strict=True)
    ]
    color = paint("stroke", series.color)
    shape = {"d": _path(points), "fill": "none", "style": color, "stroke-linejoin": "round"}
    match series.mark:
        case "faint":
            return element("path", {**shape, "stroke-width": 1, "stroke-opacity": ".3"})
        case "dashed":
            return element("path", {**shape, "stroke-width": 1.5, "stroke-dasharray": "6 4"})
        case "points":
            dots = "".join(
                element("circle", {"cx": point[0], "cy": point[1], "r": 2.6})
                for point in points
                if point
            )
            return element("path", {**shape, "stroke-width": 1.5}) + element(
                "g", {"style": paint("fill", series.color)}, inside=dots
            )
    return element("path", {**shape, "stroke-width": 2})


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """Straight lines through the points, begun anew after every gap."""
    commands, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        commands.append(f"{pen}{coordinate(point[0])} {coordinate(point[1])}")
        pen = "L"
    return "".join(commands)


def _clipped(inside: str) -> str:
    """A nested svg cuts off what leaves the plot, without a clip path and its page-wide name."""
    left, top = LEFT - DOT, TOP - DOT
    width, height = WIDTH - RIGHT + DOT - left, HEIGHT - BOTTOM + DOT - top
    box = {"x": left, "y": top, "width": width, "height": height, "overflow": "hidden"}
    view = " ".join(map(coordinate, (left, top, width, height)))
    return element("svg", {**box, "viewBox": view}, inside=inside)


def _legend(series: Sequence[Series]) -> str:
    """Names on one line above the plot, from the right."""
    named = [s for s in series if s.name]
    x = WIDTH - RIGHT - sum(LETTER * len(s.name) + 38 for s in named) + 12
    parts = []
    for entry in named:
        dash = "5 3" if entry.mark == "dashed" else "none"
        line = {"d": f"M{coordinate(x)} 12h18", "style": paint("stroke", entry.color)}
        look = {"stroke-width": 2 if entry.mark != "faint" else 1, "stroke-dasharray": dash}
        opacity = {"stroke-opacity": ".45"} if entry.mark == "faint" else {}
        parts.append(element("path", {**line, **look, **opacity}))
        if entry.mark == "points":
            dot = {"cx": x + 9, "cy": 12.0, "r": 2.6, "style": paint("fill", entry.color)}
            parts.append(element("circle", dot))
        parts.append(text_at(entry.name, x + 23, 16, anchor="start"))
        x += LETTER * len(entry.name) + 38
    return "".join(parts)


CELL = 40.0
"""Side of a cell of the heat map."""

UPRIGHT = 4
"""Letters that fit above a column without turning the name."""


def heat_map(counts: Sequence[Sequence[int]], names: Sequence[str], *, title: str) -> str:
    """A confusion matrix: a row per true class, a column per answer, a number in each cell.

    A cell's strength is its share of the row. Wrong answers have their own colour and scale, where
    the most frequent one is strongest: otherwise the few that matter would be invisible.
    """
    shown = [shorten(name, 14) for name in names]
    margin = max(LETTER * max(len(name) for name in shown) + 12, 30.0)
    left, top = margin + 20, (margin if max(map(len, shown)) > UPRIGHT else 20.0) + 22
    side = CELL * len(names)
    shares = [[cell / max(1, sum(row)) for cell in row] for row in counts]
    worst = max((s for i, row in enumerate(shares) for j, s in enumerate(row) if i != j), default=0)
    parts = [_heat_labels(shown, names, left=left, top=top, side=side)]
    for i, row in enumerate(counts):
        for j, cell in enumerate(row):
            strength = shares[i][j] if i == j else 0.15 + 0.75 * shares[i][j] / (worst or 1)
            x, y = left + CELL * j, top + CELL * i
            box = {"x": x + 1, "y": y + 1, "width": CELL - 2, "height": CELL - 2, "rx": 3}
            if not cell:
                faint = {"fill": "currentColor", "fill-opacity": ".045"}
                parts.append(element("rect", {**box, **faint}))
                continue
            color = {"style": paint("fill", 0 if i == j else 1), "fill-opacity": strength}
            note = f"{names[i]} → {names[j]}: {count(cell)} ({percent(shares[i][j])} of the class)"
            parts.append(
                element("rect", {**box, **color}, inside=element("title", inside=escape(note)))
            )
            parts.append(_cell_text(cell, x + CELL / 2, y + CELL / 2 + 4, strong=strength > 0.7))
    return svg(left + side + 6, top + side + 6, title=title, inside="".join(parts))


def _cell_text(cell: int, x: float, y: float, *, strong: bool) -> str:
    text = count(cell)
    return element(
        "text",
        {
            "x": x,
            "y": y,
            "text-anchor": "middle",
            "font-size": 12 if len(text) < 5 else 10,
            "style": "fill:var(--on-strong,#fff)" if strong else "fill:var(--ink,#111)",
        },
        inside=text,
    )


def _heat_labels(
    shown: Sequence[str], names: Sequence[str], *, left: float, top: float, side: float
) -> str:
    parts = [
        text_at("answer", left + side / 2, 12, anchor="middle"),
        element(
            "g",
            {"transform": f"translate(12 {coordinate(top + side / 2)}) rotate(-90)"},
            inside=text_at("true class", 0, 0, anchor="middle"),
        ),
    ]
    upright = max(map(len, shown)) <= UPRIGHT
    for index, (short, name) in enumerate(zip(shown, names, strict=True)):
        middle = CELL * (index + 0.5)
        note = element("title", inside=escape(name)) if short != name else ""
        parts.append(text_at(short, left - 7, top + middle + 4, anchor="end", note=note))
        if upright:
            parts.append(text_at(short, left + middle, top - 8, anchor="middle"))
            continue
        turned = f"translate({coordinate(left + middle + 4)} {coordinate(top - 7)}) rotate(-90)"
        label = text_at(short, 0, 0, anchor="start", note=note)
        parts.append(element("g", {"transform": turned}, inside=label))
    return "".join(parts)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The answers given with a confidence between `low` and `high`, and how many were right."""

    low: float
    high: float
    confidence: float
    accuracy: float
    examples: int


FEW = 10
"""Answers below which a column of the reliability diagram is pale."""

SPLIT = 208.0
"""Where the diagram ends and the histogram of the counts begins."""


def reliability_diagram(bins: Sequence[Bin], *, title: str) -> str:
    """Accuracy against confidence, with the diagonal of perfect honesty, over the counts."""
    height = 340.0
    across = Scale(low=0, high=1, start=LEFT, end=WIDTH - RIGHT)
    up = Scale(low=0, high=1, start=SPLIT, end=TOP)
    most = max((b.examples for b in bins), default=0) or 1
    tall = Scale(low=0, high=most, start=height - BOTTOM, end=SPLIT + 34)
    grid, parts = [], []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = up.place(share), across.place(share)
        grid.append(f"M{coordinate(LEFT)} {coordinate(y)}H{coordinate(WIDTH - RIGHT)}")
        grid.append(f"M{coordinate(x)} {coordinate(height - BOTTOM)}v5")
        parts.append(text_at(tick_text(share, percent=True), LEFT - 8, y + 4, anchor="end"))
        label = tick_text(share, percent=True)
        parts.append(text_at(label, x, height - BOTTOM + 18, anchor="middle"))
    grid.append(f"M{coordinate(LEFT)} {coordinate(height - BOTTOM)}H{coordinate(WIDTH - RIGHT)}")
    lines = {"d": "".join(grid), "stroke": "currentColor", "stroke-opacity": ".14"}
    parts.insert(0, element("path", lines))
    parts += [_bin(b, across, up, tall) for b in bins if b.examples]
    diagonal = f"M{coordinate(LEFT)} {coordinate(SPLIT)}L{coordinate(WIDTH - RIGHT)} {TOP:g}"
    dashes = {"d": diagonal, "stroke": "currentColor", "stroke-dasharray": "5 4", "fill": "none"}
    parts += [
        element("path", {**dashes, "stroke-opacity": ".7"}),
        text_at("accuracy", 4, 16, anchor="start"),
        text_at("dashed: as right as it is sure", WIDTH - RIGHT, 16, anchor="end"),
        text_at("answers", 4, SPLIT + 24, anchor="start"),
        text_at(count(most), LEFT - 8, SPLIT + 44, anchor="end"),
        text_at(
            "confidence of the answer", (LEFT + WIDTH - RIGHT) / 2, height - 6, anchor="middle"
        ),
    ]
    return svg(WIDTH, height, title=title, inside="".join(parts))


def _bin(b: Bin, across: Scale, up: Scale, tall: Scale) -> str:
    x, end = across.place(b.low) + 1, across.place(b.high) - 1
    note = element(
        "title",
        inside=escape(
            f"confidence {percent(b.confidence)}, right {percent(b.accuracy)}, "
            f"{count(b.examples)} answers"
        ),
    )
    width, top = max(1.0, end - x), up.place(b.accuracy)
    column = {"x": x, "y": top, "width": width, "height": SPLIT - top}
    low, y = tall.start, min(tall.place(b.examples), tall.start - 1)
    tower = {"x": x, "y": y, "width": width, "height": low - y}
    sure = f"M{coordinate(x)} {coordinate(up.place(b.confidence))}h{coordinate(width)}"
    weight = ".8" if b.examples >= FEW else ".3"
    line = {"d": sure, "style": paint("stroke", 1), "stroke-width": 2}
    return (
        element("rect", {**column, "style": paint("fill", 0), "fill-opacity": weight}, inside=note)
        + element("path", line)
        + element("rect", {**tower, "fill": "currentColor", "fill-opacity": ".4"}, inside=note)
    )


def bar(share: float, *, color: int = 0) -> str:
    """A small bar for a table's cell, full at 1."""
    width = 100 * min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0
    return element(
        "svg",
        {"class": "bar", "viewBox": "0 0 100 8", "preserveAspectRatio": "none", "role": "img"},
        inside=element(
            "rect", {"width": 100, "height": 8, "fill": "currentColor", "fill-opacity": ".1"}
        )
        + element("rect", {"width": width, "height": 8, "style": paint("fill", color)}),
    )


def paint(what: str, color: int) -> str:
    """A style that takes the page's colour for a series, or the palette's where there is no page.

    >>> paint("stroke", 0)
    'stroke:var(--series-0,#0072b2)'
    """
    index = color % len(PALETTE)
    return f"{what}:var(--series-{index},{PALETTE[index]})"


def shorten(name: str, length: int) -> str:
    """A name of at most `length` letters; what is left out shows as an ellipsis.

    >>> shorten("ankle boot", 14), shorten("a very long class name", 10)
    ('ankle boot', 'a very lo…')
    """
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def text_at(text: str, x: float, y: float, *, anchor: str, note: str = "") -> str:
    """A text at a place in a figure; `note` is the markup of what a pointer is told."""
    place = {"x": float(x), "y": float(y), "text-anchor": anchor}
    return element("text", place, inside=escape(text) + note)


def svg(width: float, height: float, *, title: str, inside: str) -> str:
    """A whole figure, which scales with the page; `title` is for those who cannot see it."""
    frame = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {coordinate(width)} {coordinate(height)}",
        "width": width,
        "height": height,
        "role": "img",
        "aria-label": title,
        "font-family": "system-ui, sans-serif",
        "font-size": 12,
        "fill": "currentColor",
    }
    return element("svg", frame, inside=inside)
