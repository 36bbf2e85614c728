"""Tests of the drawings: their structure, and exact places in simple cases."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from leadline.report.figures import (
    BOTTOM,
    CELL,
    HEIGHT,
    LEFT,
    PALETTE,
    RIGHT,
    SPLIT,
    TOP,
    WIDTH,
    Bin,
    Series,
    bar,
    heat_map,
    line_chart,
    paint,
    reliability_diagram,
    shorten,
)

SVG = "{http://www.w3.org/2000/svg}"


def parse(drawing: str) -> ElementTree.Element:
    """The drawing as XML; a bar has no namespace of its own."""
    return ElementTree.fromstring(drawing)


def texts(drawing: str) -> list[str]:
    return [entry.text or "" for entry in parse(drawing).iter(f"{SVG}text")]


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


def line(drawing: str) -> str:
    """The path of the first series."""
    found = [
        path.get("d", "")
        for path in parse(drawing).iter(f"{SVG}path")
        if path.get("fill") == "none"
    ]
    return found[0]


def test_a_line_runs_from_corner_to_corner_of_the_plot() -> None:
    drawing = line_chart(
        [Series(name="loss", xs=(0, 5, 10), ys=(1, 2, 3))],
        title="t",
        x_label="epoch",
        x_range=(0, 10),
        y_range=(1, 3),
    )
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    middle = ((LEFT + right) / 2, (TOP + bottom) / 2)
    assert places(line(drawing)) == [(LEFT, bottom), middle, (right, TOP)]


def test_a_decade_is_half_of_two_on_a_logarithmic_axis() -> None:
    drawing = line_chart(
        [Series(name="", xs=(0, 1, 2), ys=(0.01, 0.1, 1))],
        title="t",
        x_label="epoch",
        y_label="loss",
        log=True,
        y_range=(0.01, 1),
    )
    heights = [y for _, y in places(line(drawing))]
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.01)
    assert "loss (logarithmic)" in texts(drawing)


def test_what_is_not_finite_leaves_a_gap_and_no_nan_in_the_drawing() -> None:
    series = Series(name="", xs=(0, 1, 2, 3, 4), ys=(1, 2, math.nan, math.inf, 2))
    drawing = line_chart([series], title="t", x_label="epoch")
    assert line(drawing).count("M") == 2
    assert "nan" not in drawing
    assert "inf" not in drawing


def test_the_legend_names_every_named_series() -> None:
    series = [
        Series(name="training", xs=(0, 1), ys=(1, 0)),
        Series(name="validation", xs=(1,), ys=(0.5,), mark="points", color=1),
        Series(name="test", xs=(0, 1), ys=(0.4, 0.4), mark="dashed", color=3),
        Series(name="", xs=(0, 1), ys=(0, 1), mark="faint"),
    ]
    drawing = line_chart(series, title="t", x_label="epoch", y_label="loss")
    assert {"training", "validation", "test", "epoch", "loss"} <= set(texts(drawing))
    assert len(list(parse(drawing).iter(f"{SVG}circle"))) == 2  # one in the plot, one in the legend


def test_a_faint_spike_does_not_stretch_the_axis() -> None:
    calm = Series(name="", xs=(0, 1), ys=(1, 2))
    spike = Series(name="", xs=(0, 1), ys=(1, 900), mark="faint")
    alone, together = (
        line_chart(series, title="t", x_label="x") for series in ([calm], [calm, spike])
    )
    assert texts(alone) == texts(together)


def test_shares_are_labelled_as_percentages_and_stay_inside_the_possible() -> None:
    drawing = line_chart(
        [Series(name="", xs=(1, 2), ys=(0.2, 1.0))],
        title="t",
        x_label="epoch",
        percentages=True,
    )
    assert "100 %" in texts(drawing)
    assert not {"105 %", "110 %", "120 %"} & set(texts(drawing))


def test_a_chart_of_nothing_is_still_a_chart() -> None:
    assert parse(line_chart([], title="t", x_label="epoch")).get("role") == "img"


@pytest.mark.parametrize(("names", "turned"), [(("a", "b"), 1), (("a longer name", "b"), 3)])
def test_the_heat_map_puts_each_count_in_its_cell(names: tuple[str, str], turned: int) -> None:
    drawing = heat_map([[8, 2], [0, 1234]], names, title="t")
    boxes = list(parse(drawing).iter(f"{SVG}rect"))
    assert [(b.get("width"), b.get("height")) for b in boxes] == [("38", "38")] * 4
    xs, ys = ([float(b.get(axis, "")) for b in boxes] for axis in "xy")
    assert (xs[1] - xs[0], ys[2] - ys[0]) == pytest.approx((CELL, CELL))
    assert xs[0] == xs[2]
    assert {"8", "2", "1,234"} <= set(texts(drawing))
    assert "0" not in texts(drawing)
    assert len(re.findall(r"rotate\(-90\)", drawing)) == turned


def test_the_most_frequent_mistake_has_the_strongest_colour() -> None:
    drawing = heat_map([[90, 10, 0], [5, 95, 0], [0, 1, 99]], "abc", title="t")
    wrong = {
        (box.findtext(f"{SVG}title") or "")[:5]: float(box.get("fill-opacity", ""))
        for box in parse(drawing).iter(f"{SVG}rect")
        if "series-1" in box.get("style", "")
    }
    assert wrong == pytest.approx({"a → b": 0.9, "b → a": 0.525, "c → b": 0.225}, abs=0.006)


def test_names_in_a_drawing_are_text_and_nothing_else() -> None:
    drawing = heat_map([[1, 1], [1, 1]], ("<script>", '"&'), title='"><x')
    assert [e.tag for e in parse(drawing).iter() if "script" in e.tag] == []
    assert "<script>" in texts(drawing)


def test_a_bin_is_as_high_as_it_is_accurate() -> None:
    bins = [
        Bin(low=0.0, high=0.5, confidence=0.0, accuracy=0.0, examples=0),
        Bin(low=0.5, high=1.0, confidence=0.75, accuracy=0.5, examples=20),
    ]
    column, tower = parse(reliability_diagram(bins, title="t")).iter(f"{SVG}rect")
    assert float(column.get("y", "")) == pytest.approx((TOP + SPLIT) / 2)
    assert float(column.get("height", "")) == pytest.approx((SPLIT - TOP) / 2)
    assert float(column.get("x", "")) == pytest.approx((LEFT + WIDTH - RIGHT) / 2 + 1)
    assert tower.get("x") == column.get("x")
    assert column.findtext(f"{SVG}title") == "confidence 75.0 %, right 50.0 %, 20 answers"


def test_a_column_of_few_answers_is_pale() -> None:
    bins = [
        Bin(low=0.0, high=0.5, confidence=0.3, accuracy=1.0, examples=9),
        Bin(low=0.5, high=1.0, confidence=0.8, accuracy=1.0, examples=10),
    ]
    boxes = list(parse(reliability_diagram(bins, title="t")).iter(f"{SVG}rect"))
    assert [boxes[0].get("fill-opacity"), boxes[2].get("fill-opacity")] == [".3", ".8"]


@pytest.mark.parametrize(
    ("share", "width"), [(0.25, "25"), (1.7, "100"), (-1, "0"), (math.nan, "0")]
)
def test_a_bar_is_as_long_as_its_share_and_never_longer_than_full(share: float, width: str) -> None:
    assert list(parse(bar(share)))[1].get("width") == width


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", PALETTE)
def test_every_line_stands_out_from_white_paper(color: str) -> None:
    assert 1.05 / (luminance(color) + 0.05) >= 3  # WCAG's least contrast for graphics


def test_colours_begin_again_after_the_last() -> None:
    assert paint("fill", len(PALETTE)) == paint("fill", 0)


def test_a_long_name_keeps_its_beginning() -> None:
    assert shorten("abcdefgh", 5) == "abcd…"
