"""The verdict: in one sentence how good the network is, and the key figures beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from leadline.report.markup import escape, tied
from leadline.report.numbers import count, duration, interval, number, percent, plural
from leadline.tasks.classification import ClassificationResult
from leadline.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the verdict rests on, gathered from a run and its result on the test split."""

    right: int
    total: int
    seconds: float | None
    model: str
    parameters: int
    steps: int
    epochs: int
    examples_seen: int

    @property
    def accuracy(self) -> float:
        """The share of test images named correctly."""
        return self.right / max(1, self.total)


def gather(
    recipe: Recipe,
    history: list[dict[str, Any]],
    *,
    result: ClassificationResult,
    parameters: int,
) -> Facts:
    """The facts of a run: its recipe, its journal's rows and its test result."""
    steps = [row for row in history if row["event"] == "step"]
    ends = [row for row in history if row["event"] == "end"]
    return Facts(
        right=int(result.confusion.diagonal().sum()),
        total=int(result.confusion.sum()),
        seconds=ends[-1].get("seconds") if ends else None,
        model=recipe.model.model,
        parameters=parameters,
        steps=steps[-1]["step"] if steps else 0,
        epochs=steps[-1]["epoch"] if steps else 0,
        examples_seen=sum(row["examples"] for row in steps),
    )


def verdict(facts: Facts) -> str:
    """One sentence that a person without the vocabulary can read.

    >>> facts = Facts(
    ...     right=357, total=360, seconds=12.3, model="convnet", parameters=123456,
    ...     steps=800, epochs=40, examples_seen=51200,
    ... )
    >>> verdict(facts)
    'Of 360 test images ... names 357 correctly (99.2 %); ... trained in 12.3 s.'
    """
    time = f", trained in {duration(facts.seconds)}" if facts.seconds is not None else ""
    return (
        f"Of {plural(facts.total, 'test image')} that it was not trained on, the network names "
        f"{count(facts.right)} correctly ({percent(facts.accuracy)}); it is "
        f"{_article(facts.model)} {facts.model} with {plural(facts.parameters, 'parameter')}{time}."
    )


def _article(word: str) -> str:
    return "an" if word[:1] in "aeio" or word.startswith("mlp") else "a"


def key_figures(facts: Facts, result: ClassificationResult) -> str:
    """The figures that are asked for first, as a row of tiles."""
    low, high = interval(facts.right, facts.total)
    largest = int(result.confusion.sum(dim=1).max())
    tiles = [
        (
            "test accuracy",
            percent(facts.accuracy),
            f"between {percent(low)} and {percent(high)} with 95 % confidence, "
            f"from {plural(facts.total, 'image')}",
        ),
        (
            "without looking",
            percent(largest / max(1, facts.total)),
            "the accuracy of always answering the most frequent class",
        ),
        (
            "test loss",
            number(result.loss),
            f"cross-entropy in nats; a blind guess has {_blind(result)}",
        ),
        (
            "calibration error",
            percent(result.calibration_error),
            "how far confidence and accuracy differ on average",
        ),
        *_time_tiles(facts),
        ("parameters", count(facts.parameters), f"of {_article(facts.model)} {facts.model}"),
    ]
    if result.top5 is not None:
        top5 = ("top-5 accuracy", percent(result.top5), "the truth is among the five likeliest")
        tiles.insert(2, top5)
    else:
        wrong = facts.total - facts.right
        tiles.insert(2, ("wrong answers", count(wrong), f"of {plural(facts.total, 'image')}"))
    return '<div class="tiles">' + "".join(_tile(*tile) for tile in tiles) + "</div>"


def _blind(result: ClassificationResult) -> str:
    """The cross-entropy of knowing only how frequent each class is."""
    shares = result.confusion.sum(dim=1).double()
    shares = shares[shares > 0] / shares.sum()
    return number(float(-(shares * shares.log()).sum()))


def _time_tiles(facts: Facts) -> list[tuple[str, str, str]]:
    passes = f"{plural(facts.steps, 'step')} in {plural(facts.epochs, 'epoch')}"
    if not facts.seconds:
        return [("steps", count(facts.steps), passes)]
    rate = facts.examples_seen / facts.seconds
    return [
        ("training time", duration(facts.seconds), passes),
        ("speed", f"{number(rate)}/s", "training images a second, validation included"),
    ]


def _tile(name: str, value: str, note: str) -> str:
    figure = f"<strong>{tied(value)}</strong>"
    return f"<div><h3>{escape(name)}</h3>{figure}<small>{tied(note)}</small></div>"
