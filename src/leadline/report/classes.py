"""Which classes are confused, how honest the confidence is, and how each class fares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leadline.report.figures import Bin, bar, heat_map, reliability_diagram
from leadline.report.markup import Column, escape, figure, prose, section, table
from leadline.report.numbers import count, number, percent, plural
from leadline.tasks.classification import ClassificationResult

DRAWN_UP_TO = 20
"""Classes up to which the whole confusion matrix can be read; beyond, its worst pairs are told."""

PAIRS = 30
"""How many pairs of confused classes are listed."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Images of class `true` that were answered as `answer`: how many, of how many."""

    true: int
    answer: int
    times: int
    of: int


def confused_pairs(matrix: Sequence[Sequence[int]], *, most: int = PAIRS) -> list[Confusion]:
    """The pairs of classes that are mistaken for one another most often.

    >>> [(p.true, p.answer, p.times) for p in confused_pairs([[5, 1, 0], [0, 9, 0], [3, 0, 2]])]
    [(2, 0, 3), (0, 1, 1)]
    """
    pairs = [
        Confusion(true=i, answer=j, times=times, of=sum(row))
        for i, row in enumerate(matrix)
        for j, times in enumerate(row)
        if i != j and times
    ]
    return sorted(pairs, key=lambda pair: (-pair.times, pair.of, pair.true, pair.answer))[:most]


def confusion_section(result: ClassificationResult, names: Sequence[str]) -> str:
    """The confusion matrix as a picture, or as its worst pairs when the classes are many."""
    matrix = result.confusion.tolist()
    title, anchor = "What is confused with what", "confusion"
    if len(names) <= DRAWN_UP_TO:
        caption = (
            "A row is what the images are, a column what the network answered; the diagonal is "
            "right. The stronger a colour, the larger the share of the row; for wrong answers "
            "(off the diagonal) the strongest colour is the most frequent mistake."
        )
        drawing = heat_map(matrix, names, title="confusion matrix of the test images")
        return section(title, figure(drawing, caption=caption, kind="matrix"), anchor=anchor)
    pairs = confused_pairs(matrix)
    if not pairs:
        return section(title, prose("No test image was answered wrongly."), anchor=anchor)
    rows = [
        [
            escape(names[pair.true]),
            escape(names[pair.answer]),
            count(pair.times),
            count(pair.of),
            percent(pair.times / pair.of),
            bar(pair.times / pair.of, color=1),
        ]
        for pair in pairs
    ]
    columns = [
        Column(name="it is"),
        Column(name="answered"),
        Column(name="times", kind="number"),
        Column(name="of", kind="number"),
        Column(name="share", kind="number"),
        Column(name="", kind="bars"),
    ]
    reading = (
        f"{plural(len(names), 'class')} are too many for a picture: these are the "
        f"{plural(len(pairs), 'pair')} that were confused most often."
    )
    return section(title, prose(reading), table(columns, rows), anchor=anchor)


def calibration_section(result: ClassificationResult) -> str:
    """The reliability diagram with the expected calibration error explained."""
    bins = [
        Bin(
            low=b.low,
            high=b.high,
            confidence=b.confidence,
            accuracy=b.accuracy,
            examples=b.count,
        )
        for b in result.reliability
    ]
    examples = sum(b.examples for b in bins)
    sure = sum(b.confidence * b.examples for b in bins) / max(1, examples)
    right = sum(b.accuracy * b.examples for b in bins) / max(1, examples)
    error = 100 * result.calibration_error
    points = f"{number(error, digits=2)} percentage points"
    tendency = _tendency(sure - right)
    caption = (
        "Above: answers gathered by how sure the network was; the column is how many of them "
        "were right, the line across it how sure it was on average. Columns below the dashed line "
        "are too sure of themselves, columns above it too modest. Below: how many answers "
        "there are in each; a pale column has fewer than ten, which say little."
    )
    drawing = reliability_diagram(bins, title="reliability diagram of the test answers")
    reading = (
        f"When the network says it is 90 % sure, is it right nine times in ten? On average its "
        f"confidence is off by {points} (the expected calibration error: the distance between "
        f"column and line, weighted by the answers). {tendency}"
    )
    return section(
        "How far its confidence can be trusted",
        prose(reading),
        figure(drawing, caption=caption, kind="single"),
        anchor="calibration",
    )


def _tendency(surplus: float) -> str:
    if abs(surplus) < 0.005:
        return "On the whole it is as sure as it is right."
    direction = "surer than it is right" if surplus > 0 else "less sure than it is right"
    return f"On the whole it is {direction}, by {number(100 * abs(surplus), digits=2)} points."


def per_class_section(result: ClassificationResult, names: Sequence[str]) -> str:
    """Each class: how many of its images were named correctly, and what else they were called."""
    matrix = result.confusion.tolist()
    rows = []
    for index in sorted(range(len(names)), key=lambda i: (_accuracy(matrix[i], i), i)):
        row = matrix[index]
        wrong = [(times, other) for other, times in enumerate(row) if other != index and times]
        worst = max(wrong, key=lambda pair: (pair[0], -pair[1]), default=None)
        share = _accuracy(row, index)
        answered = sum(other[index] for other in matrix)
        rows.append(
            [
                escape(names[index]),
                percent(share) if sum(row) else "–",
                bar(share) if sum(row) else "",
                count(sum(row)),
                percent(row[index] / answered) if answered else "–",
                f"{escape(names[worst[1]])} ({count(worst[0])}×)" if worst else "–",
            ]
        )
    columns = [
        Column(name="class"),
        Column(name="accuracy", kind="number"),
        Column(name="", kind="bars"),
        Column(name="test images", kind="number"),
        Column(name="right when answered", kind="number"),
        Column(name="most often taken for"),
    ]
    reading = (
        "The class with the lowest accuracy first. Accuracy: of the images of this class, how "
        "many were named so (recall). Right when answered: of the images named so, how many are "
        "of this class (precision)."
    )
    return section("Class by class", prose(reading), table(columns, rows), anchor="classes")


def _accuracy(row: Sequence[int], index: int) -> float:
    """The share of a class that was named correctly; a class without test images comes last."""
    return row[index] / sum(row) if sum(row) else 2.0
