"""Tests of a checkup in words: the verdict, the findings, the layers with their bars."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from leadline.doctor.check import check
from leadline.doctor.finding import Evidence, Finding, Severity
from leadline.doctor.words import BAR, MOST_ROWS, WIDTH, describe_checkup, layer_table
from leadline.measure.survey import LayerRecord


def layer(name: str, **changes: Any) -> LayerRecord:
    values: dict[str, Any] = {
        "kind": "Linear",
        "shape": (8, 4),
        "mean": 0.0,
        "std": 1.0,
        "zeros": math.nan,
        "silent": math.nan,
        "saturated": math.nan,
        "looks": 8,
        "gradient": 1e-3,
    }
    return LayerRecord(name=name, **values | changes)


def finding(severity: Severity = "error", layers: tuple[str, ...] = ()) -> Finding:
    return Finding(
        cause="double_softmax",
        severity=severity,
        summary="the outputs are probabilities already",
        evidence=(Evidence(quantity="sum of a row", measured=1.0, expected="any number"),),
        remedy="return the logits",
        layers=layers,
        source="a paper",
    )


def described(*findings: Finding) -> str:
    return describe_checkup(
        model="Net", survey=None, findings=findings, loss=2.5, expected=2.3, seconds=1.234
    )


def test_the_verdict_counts_in_the_right_number() -> None:
    assert described().splitlines()[0] == "Net: nothing wrong was found (1.2 s)"
    text = describe_checkup(
        model="Net", survey=None, findings=(), loss=2.5, expected=None, seconds=0.0123
    )
    assert text.splitlines()[0] == "Net: nothing wrong was found (0.01 s)"
    assert described(finding()).splitlines()[0] == "Net: 1 error (1.2 s)"
    several = described(finding(), finding(), finding("warning"), finding("note"))
    assert several.splitlines()[0] == "Net: 2 errors, 1 warning, 1 note (1.2 s)"


def test_a_finding_says_where_why_and_what_to_do() -> None:
    text = described(finding(layers=("a", "b", "c", "d", "e", "f")))
    assert "ERROR   double_softmax: the outputs are probabilities already" in text
    assert "        where    a, b, c, d and 2 more" in text
    assert "        evidence sum of a row: 1, expected any number" in text
    assert "        do this  return the logits" in text
    assert "        source   a paper" in text


def test_the_loss_stands_beside_that_of_a_network_that_knows_nothing(mlp: Any, rows: Any) -> None:
    text = str(check(mlp(), rows, nn.CrossEntropyLoss()))
    assert "(a network that knows nothing: 1.609)" in text
    targets = rows[0][:, :1]
    text = str(check(mlp(outputs=1), (rows[0], targets), nn.MSELoss()))
    assert "loss at the start" in text
    assert "knows nothing" not in text


def test_the_table_has_a_line_for_each_layer_in_depth_order(mlp: Any, rows: Any) -> None:
    lines = str(check(mlp(), rows, nn.CrossEntropyLoss())).splitlines()
    kinds = [line.split()[2] for line in lines if line.strip()[:1].isdigit()]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_no_line_is_longer_than_a_terminal(conv_net: Any, images: Any) -> None:
    network = conv_net(nn.Softmax(dim=1), nn.Dropout(0.9))
    text = str(check(network, images, nn.CrossEntropyLoss()))
    assert max(map(len, text.splitlines())) <= 120
    told = [line for line in text.splitlines() if line.startswith(("ERROR", "WARNING", "  "))]
    assert max(len(line) for line in told if not line.strip()[:1].isdigit()) <= WIDTH + 4


def test_a_bar_is_the_power_of_ten_between_the_smallest_and_the_largest() -> None:
    table = layer_table([layer(str(n), std=10.0**-n) for n in range(9)])
    bars = [line.count("█") for line in table.splitlines()[1:10]]
    assert bars[0] >= BAR
    lengths = [bar_of(line) for line in table.splitlines()[1:10]]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[8] > 0


def bar_of(line: str) -> float:
    """The length of the first bar of a line, the one of the spread."""
    part = line[line.index("e") : line.rindex("e")]  # between the two numbers
    return sum(1.0 if c == "█" else "▏▎▍▌▋▊▉".find(c) / 8 + 1 / 8 for c in part if c in "█▏▎▍▌▋▊▉")


def test_numbers_of_one_power_of_ten_make_bars_of_one_length() -> None:
    table = layer_table([layer(str(n), std=1.0 + 0.1 * n) for n in range(5)])
    lengths = {round(bar_of(line), 1) for line in table.splitlines()[1:6]}
    assert max(lengths) - min(lengths) <= 0.5


@pytest.mark.parametrize("std", [0.0, math.nan, math.inf])
def test_what_has_no_power_of_ten_has_no_bar(std: float) -> None:
    lines = layer_table([layer("a"), layer("b", std=std, gradient=None)]).splitlines()
    assert "█" in lines[1]
    assert "█" not in lines[2]
    assert "–" in lines[2], "no gradient came back"


def test_a_deep_network_is_thinned_out_but_keeps_what_is_named() -> None:
    layers = [layer(f"layer{n}") for n in range(300)]
    marked = frozenset({"layer7", "layer123"})
    lines = layer_table(layers, marked=marked).splitlines()
    shown = [line for line in lines if "Linear" in line]
    assert len(shown) <= MOST_ROWS + len(marked)
    arrows = [line.split()[2] for line in lines if line.startswith("▶")]
    assert arrows == ["layer7", "layer123"]
    assert lines[-3].strip() == f"{len(shown)} of 300 layers are shown"
    assert "layer0" in shown[0] and "layer299" in shown[-1]


def test_a_long_name_keeps_its_end() -> None:
    table = layer_table([layer("a" * 50 + ".attention.project")])
    assert ".attention.project" in table
    assert "…" in table


def test_what_does_nothing_is_left_out() -> None:
    table = layer_table([layer("a"), layer("b", kind="Identity")])
    assert "Identity" not in table


def test_a_checkup_without_a_survey_has_no_table(mlp: Any, rows: Any) -> None:
    text = str(check(mlp(), (rows[0], rows[0][:, :1]), nn.BCELoss()))
    assert "1 error" in text
    assert "spread" not in text


def test_the_words_of_a_checkup_hold_no_python_of_ours(mlp: Any, rows: Any) -> None:
    network = mlp()
    with torch.no_grad():
        network[0].weight[0, 0] = math.nan
    text = str(check(network, rows, nn.CrossEntropyLoss()))
    assert "Backward0" not in text
    assert "loss at the start nan" in text
