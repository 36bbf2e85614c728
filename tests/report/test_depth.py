"""Tests of the maps over depth and time: the right colour at the right place."""

from __future__ import annotations

import base64
import io
import math
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leadline.report.depth import VIRIDIS, LayerMap, depth_section, draw_map, layer_map


def watch_row(step: int, **values: Any) -> dict[str, Any]:
    layers = [f"layer{number}" for number in range(len(next(iter(values.values()))))]
    return {"event": "watch", "step": step, "layers": layers, "values": values}


def history(
    layers: int = 5, steps: tuple[int, ...] = (1, 2, 4, 8, 50, 100)
) -> list[dict[str, Any]]:
    depth = np.arange(1, layers + 1)
    return [{"event": "step", "step": 120}] + [
        watch_row(
            step,
            std=(0.5**depth).tolist(),
            gradient_norm=(depth / step).tolist(),
            update_ratio=[None, *(1e-3 * depth[1:]).tolist()],
            zeros=[0.0, *([0.5] * (layers - 1))],
            dead=[0.0, *([0.25] * (layers - 1))],
        )
        for step in steps
    ]


def pixels(drawn: str, *, which: int) -> np.ndarray[Any, Any]:
    data = re.findall(r'href="data:image/png;base64,([^"]+)"', drawn)[which]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def colour(text: str) -> list[int]:
    return [*(int(text[i : i + 2], 16) for i in (1, 3, 5)), 255]


def make_map(values: list[list[float]], steps: tuple[int, ...]) -> LayerMap:
    layers = tuple(f"layer{number}" for number in range(len(values)))
    return LayerMap(layers=layers, steps=steps, values=np.array(values))


def test_a_row_is_a_layer_and_a_column_the_nearest_sample() -> None:
    drawn = draw_map(make_map([[1.0, 100.0], [10.0, 1.0]], (1, 101)), last=200, title="t")
    ramp, picture = pixels(drawn, which=0), pixels(drawn, which=1)
    assert ramp.shape == (1, 64, 4) and picture.shape == (2, 200, 4)
    lowest, middle, highest = colour(VIRIDIS[0]), colour(VIRIDIS[4]), colour(VIRIDIS[-1])
    assert ramp[0, 0].tolist() == lowest and ramp[0, -1].tolist() == highest
    assert picture[0, 0].tolist() == lowest and picture[0, -1].tolist() == highest
    assert np.abs(picture[1, 0].astype(int) - middle).max() < 8  # half-way on a logarithmic scale
    assert picture[0, 50].tolist() == lowest and picture[0, 51].tolist() == highest


def test_what_is_not_known_has_no_colour_and_what_is_beyond_has_that_of_the_end() -> None:
    values = [[math.nan, 0.0, 1.0], [1.0, 10.0, math.inf]]
    picture = pixels(draw_map(make_map(values, (1, 2, 3)), last=3, title="t"), which=1)
    assert picture[0, 0, 3] == 0
    assert picture[0, 1].tolist() == colour(VIRIDIS[0])
    assert picture[1, 2].tolist() == colour(VIRIDIS[-1])


def test_what_is_nearly_the_same_everywhere_is_not_drawn_as_a_contrast() -> None:
    picture = pixels(draw_map(make_map([[1.0, 1.001]], (1, 2)), last=2, title="t"), which=1)
    assert np.abs(picture[0, 0].astype(int) - picture[0, 1]).max() < 5


def test_shares_are_drawn_from_nothing_to_the_highest() -> None:
    drawn = draw_map(make_map([[0.0, 0.2], [0.4, 0.4]], (1, 2)), last=2, title="t", shares=True)
    picture = pixels(drawn, which=1)
    assert ">0 %<" in drawn and ">40 %<" in drawn
    assert picture[0, 0].tolist() == colour(VIRIDIS[0])
    assert picture[0, 1].tolist() == colour(VIRIDIS[4])


@pytest.mark.parametrize(("layers", "shown"), [(3, 3), (20, 20), (200, 40)])
def test_there_are_as_many_names_as_can_be_read(layers: int, shown: int) -> None:
    drawn = draw_map(make_map([[1.0]] * layers, (1,)), last=1, title="t")
    names = re.findall(r">(layer\d+)<title>", drawn)
    assert names[0] == "layer0"
    assert len(names) <= shown and len(names) > min(layers, 20) - 1
    size = re.search(r'viewBox="0 0 \d+ ([\d.]+)"', drawn)
    assert size and float(size[1]) < 400


def test_a_long_name_shows_its_end_and_tells_the_rest() -> None:
    values = LayerMap(layers=("a.very.long.path.to.conv1",), steps=(1,), values=np.array([[1.0]]))
    drawn = draw_map(values, last=1, title="t")
    assert ">…ong.path.to.conv1<title>a.very.long.path.to.conv1</title>" in drawn


def test_layers_that_never_have_a_number_are_left_out_and_new_ones_come_in() -> None:
    rows = [
        {"step": 1, "layers": ["a", "b"], "values": {"std": [None, 1.0]}},
        {"step": 2, "layers": ["a", "b", "c"], "values": {"std": [None, "inf", 2.0]}},
    ]
    found = layer_map(rows, "std")
    assert found.layers == ("b", "c") and found.steps == (1, 2)
    assert found.values[0].tolist() == [1.0, math.inf]
    assert math.isnan(found.values[1, 0])
    assert layer_map(rows, "dead").layers == ()


def test_a_watched_run_has_four_maps_with_what_is_highest_and_lowest() -> None:
    drawn = depth_section(history())
    assert drawn.count("<svg xmlns") == 4
    assert "looked at in 6 of 120 steps" in drawn
    assert "between 0.0312 (layer4) and 0.5 (layer0)" in drawn
    assert ">layer0<" in drawn.partition("dead units")[0]
    assert ">layer0<" not in drawn.partition("dead units")[2]  # it returns no zeros


def test_a_run_without_dead_units_says_so_without_a_picture() -> None:
    rows = history()
    for row in rows[1:]:
        row["values"]["dead"] = [0.0] * 5
    drawn = depth_section(rows)
    assert drawn.count("<svg xmlns") == 3
    assert "No layer had a unit that was zero for every example." in drawn


def test_a_run_that_was_not_watched_says_so() -> None:
    assert "it was not watched" in depth_section([{"event": "step", "step": 1}])


def test_a_training_that_diverged_can_be_drawn() -> None:
    nothing = {"std": [None, None], "gradient_norm": ["inf", None], "update_ratio": [0.0, 0.0]}
    drawn = depth_section([watch_row(1, **nothing)])
    assert "nan" not in drawn.lower().replace("base64", "").partition("data:")[0]
    assert drawn.count("<svg xmlns") == 2


def test_many_layers_and_steps_make_a_small_drawing() -> None:
    steps = tuple(range(1, 2001))
    drawn = depth_section(history(layers=300, steps=steps))
    assert len(drawn) < 400_000
