"""Tests of confusion, calibration and the classes."""

from __future__ import annotations

import re

import torch

from leadline.report.classes import (
    DRAWN_UP_TO,
    calibration_section,
    confused_pairs,
    confusion_section,
    per_class_section,
)
from leadline.tasks.classification import Classification, ClassificationResult


def judged(answers: list[int], targets: list[int], *, classes: int) -> ClassificationResult:
    """The result of a network that is nearly certain of `answers`."""
    outputs = 9 * torch.nn.functional.one_hot(torch.tensor(answers), classes).float()
    return Classification(classes).evaluate(outputs, torch.tensor(targets))


def test_pairs_come_by_how_often_they_are_confused() -> None:
    pairs = confused_pairs([[1, 4, 0], [2, 1, 0], [0, 4, 4]])
    assert [(p.true, p.answer, p.times, p.of) for p in pairs] == [
        (0, 1, 4, 5),
        (2, 1, 4, 8),
        (1, 0, 2, 3),
    ]


def test_few_classes_are_drawn() -> None:
    result = judged([0, 1, 1], [0, 1, 0], classes=2)
    assert "<svg" in confusion_section(result, ("cat", "dog"))


def test_many_classes_are_listed_by_their_worst_pairs() -> None:
    classes = DRAWN_UP_TO + 1
    result = judged([3, 3, 3, 5], [4, 4, 3, 6], classes=classes)
    drawn = confusion_section(result, [f"<{i}>" for i in range(classes)])
    assert re.findall(r"<td[^>]*>(&lt;\d&gt;)</td>", drawn) == [
        "&lt;4&gt;",
        "&lt;3&gt;",
        "&lt;6&gt;",
        "&lt;5&gt;",
    ]
    assert "21 classes are too many for a picture" in drawn


def test_many_classes_without_a_mistake_need_no_table() -> None:
    result = judged([1, 2], [1, 2], classes=DRAWN_UP_TO + 1)
    drawn = confusion_section(result, [str(i) for i in range(DRAWN_UP_TO + 1)])
    assert "No test image was answered wrongly." in drawn


def test_the_calibration_error_is_said_in_points() -> None:
    result = judged([0] * 10, [0] * 5 + [1] * 5, classes=2)
    drawn = calibration_section(result)
    assert "off by 50 percentage points" in drawn
    assert "surer than it is right, by 50 points" in drawn


def test_a_network_that_is_as_sure_as_it_is_right_is_told_so() -> None:
    assert "as sure as it is right" in calibration_section(judged([0, 1], [0, 1], classes=2))


def test_the_worst_class_comes_first_and_an_empty_one_last() -> None:
    result = judged([0, 1, 0, 0, 2], [0, 1, 1, 1, 2], classes=4)
    drawn = per_class_section(result, ("a", "b", "c", "d"))
    rows = re.findall(r"<tr>(.*?)</tr>", drawn)[1:]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    assert [row[0] for row in cells] == ["b", "a", "c", "d"]
    assert cells[0][1] == "33.3 %"
    assert cells[0][5] == "a (2×)"
    assert cells[1][4] == "33.3 %"  # one of the three answers 'a' was right
    assert [cells[3][i] for i in (1, 3, 4, 5)] == ["–", "0", "–", "–"]
