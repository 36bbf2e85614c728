"""The model card: what the network is for, what it was made from, how good it is, and its limits.

A README.md with the YAML head that the Hugging Face Hub reads (Mitchell et al., Model Cards for
Model Reporting, 2019). It claims what was measured on the test images, with their number, and
says what nobody measured.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from leadline.core.files import write_atomic
from leadline.data.examples import Dataset
from leadline.report.classes import confused_pairs
from leadline.report.markup import UNPRINTABLE
from leadline.report.numbers import count, duration, interval, number, percent, plural
from leadline.report.usage import predict_command, predict_lines, repeat_command
from leadline.tasks.classification import ClassificationResult
from leadline.training.recipe import Recipe
from leadline.training.run import Run

NAMED = 60
"""Classes that are listed by name; more are only counted."""


def write_card(run: Run, *, dataset: Dataset, result: ClassificationResult) -> Path:
    """Write the model card `README.md` into the run's folder, whole or not at all; the path."""
    recipe = run.recipe
    parts = [
        _head(run, recipe, dataset, result),
        f"# {plain(run.folder.name)}",
        _opening(recipe, dataset, result),
        _uses(dataset),
        _data(dataset),
        _training(run, recipe),
        _results(dataset, result),
        _limits(dataset, result),
        _how(run, dataset),
    ]
    write_atomic(run.card_file, "\n\n".join(parts) + "\n")
    return run.card_file


def plain(text: str) -> str:
    """Text that Markdown shows as it is: its special characters are escaped, HTML included.

    >>> plain("a_b [x](y) <i>|")
    'a\\\\_b \\\\[x\\\\](y) \\\\<i\\\\>\\\\|'
    """
    text = " ".join(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", text)


def _head(run: Run, recipe: Recipe, dataset: Dataset, result: ClassificationResult) -> str:
    """The YAML head; every text is quoted as JSON, which is YAML too."""
    name, data = _quoted(run.folder.name), _quoted(dataset.name)
    values = {"accuracy": result.accuracy, "loss": result.loss}
    metrics = "".join(
        f"      - type: {key}\n        name: {_quoted('test ' + key)}\n        value: {value:.6g}\n"
        for key, value in values.items()
    )
    return (
        "---\n"
        "library_name: leadline\n"
        "pipeline_tag: image-classification\n"
        f"tags:\n- image-classification\n- leadline\n- {_quoted(recipe.model.model)}\n"
        f"datasets:\n- {data}\n"
        "metrics:\n- accuracy\n"
        f"model-index:\n- name: {name}\n  results:\n"
        "  - task:\n      type: image-classification\n"
        f"    dataset:\n      type: {data}\n      name: {data}\n      split: test\n"
        f"    metrics:\n{metrics}"
        "---"
    )


def _quoted(text: str) -> str:
    return json.dumps(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text))


def _opening(recipe: Recipe, dataset: Dataset, result: ClassificationResult) -> str:
    right, total = _right(result)
    return (
        f"A {recipe.model.model} that sorts images into {plural(dataset.num_classes, 'class')}. "
        f"It named {count(right)} of {plural(total, 'test image')} correctly: "
        f"{percent(result.accuracy)}."
    )


def _right(result: ClassificationResult) -> tuple[int, int]:
    return int(result.confusion.diagonal().sum()), int(result.confusion.sum())


def _uses(dataset: Dataset) -> str:
    names = dataset.class_names
    listed = ", ".join(plain(name) for name in names[:NAMED])
    more = f", and {count(len(names) - NAMED)} more" if len(names) > NAMED else ""
    return (
        "## Intended use\n\n"
        f"To tell these classes apart: {listed}{more}. For images like those of "
        f"{plain(dataset.name)}; every image gets one of these classes, also an image of "
        "something else."
    )


def _data(dataset: Dataset) -> str:
    channels, height, width = dataset.shape
    lines = [
        "## Data\n",
        f"{plain(dataset.name)}: {count(len(dataset.train))} training, "
        f"{count(len(dataset.val))} validation and {count(len(dataset.test))} test images of "
        f"{width} × {height} pixels with {plural(channels, 'channel')}. What was noted:\n",
        *(f"- {plain(note)}" for note in dataset.notes),
    ]
    return "\n".join(lines)


def _training(run: Run, recipe: Recipe) -> str:
    start, end = run.event("start") or {}, run.event("end") or {}
    parameters = f" with {count(start['parameters'])} parameters" if "parameters" in start else ""
    time = f", in {duration(end['seconds'])}" if end.get("seconds") else ""
    machine = start.get("machine", {})
    where = f" on {plain(str(machine['cpu']))}" if machine.get("cpu") else ""
    budget = recipe.budget
    return (
        "## Training\n\n"
        f"A {recipe.model.model}{parameters}, trained from scratch for "
        f"{plural(budget.epochs, 'epoch')} at most, {plural(budget.batch_size, 'image')} a batch, "
        f"with {recipe.optimizer.optimizer} (lr {number(recipe.optimizer.lr)}){time}{where}. "
        "Everything else is in `recipe.json`; the course of the training is in `journal.jsonl` "
        "and `report.html`."
    )


def _results(dataset: Dataset, result: ClassificationResult) -> str:
    right, total = _right(result)
    low, high = interval(right, total)
    rows = [
        ("accuracy", percent(result.accuracy)),
        ("95 % interval of the accuracy", f"{percent(low)} to {percent(high)}"),
        ("cross-entropy", number(result.loss)),
        ("expected calibration error", percent(result.calibration_error)),
    ]
    if result.top5 is not None:
        rows.insert(2, ("top-5 accuracy", percent(result.top5)))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"## Results\n\nOn {plural(total, 'test image')} that it was not trained on, one run:\n\n"
        f"| measure | value |\n|---|---|\n{table}"
    )


def _limits(dataset: Dataset, result: ClassificationResult) -> str:
    names = [plain(name) for name in dataset.class_names]
    pairs = confused_pairs(result.confusion.tolist(), most=3)
    lines = [
        "## Limits\n",
        "- One training with one seed; another seed gives a slightly different figure.",
        "- Measured on images from the same source as the training images. How it fares on "
        "images from elsewhere, on damaged ones, or on ones made to deceive it was not measured.",
        "- Whether it treats groups of people or things alike was not measured, beyond the "
        "accuracy per class in `report.html`.",
    ]
    for pair in pairs:
        lines.append(
            f"- It took {names[pair.true]} for {names[pair.answer]} in {count(pair.times)} of "
            f"{plural(pair.of, 'test image')} of that class."
        )
    return "\n".join(lines)


def _how(run: Run, dataset: Dataset) -> str:
    channels, height, width = dataset.shape
    return (
        "## How to use it\n\n"
        f"```sh\n{predict_command(run)}\n```\n\n"
        f"```python\n{predict_lines(run)}\n```\n\n"
        f"`model.safetensors` holds the weights and, in its header, the architecture, the class "
        f"names and the normalisation of the {channels} × {height} × {width} input.\n\n"
        f"To train it again: `{repeat_command(run)}`"
    )
