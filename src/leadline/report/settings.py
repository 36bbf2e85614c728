"""What a run was made of: the data, the recipe, and the machine that computed it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from leadline.data.examples import Dataset
from leadline.report.markup import Column, escape, folded, prose, section, table
from leadline.report.numbers import count, number, plural, size
from leadline.training.execution import Execution
from leadline.training.recipe import Recipe

PACKAGES = ("leadline", "numpy", "safetensors", "scikit-learn", "pillow")
"""The packages whose version can change a result."""

MACHINE_WORDS = {
    "device": "device",
    "device_name": "device name",
    "cpu": "processor",
    "cpu_capability": "vector instructions that torch uses",
    "cores": "cores",
    "memory": "memory",
    "bf16": "bfloat16 in hardware",
    "amx": "AMX matrix units",
    "platform": "system",
    "python": "Python",
    "torch": "torch",
}
"""What the machine's facts are called."""


def data_section(dataset: Dataset) -> str:
    """The splits, the shape and scale of the images, and what was noticed about the source."""
    channels, height, width = dataset.shape
    splits = [("training", dataset.train, "weights, mean and std are learned from these alone")]
    splits.append(("validation", dataset.val, "watched during the training"))
    splits.append(("test", dataset.test, "looked at once, at the end, for this report"))
    rows = [[escape(name), count(len(examples)), escape(use)] for name, examples, use in splits]
    columns = [Column(name="split"), Column(name="images", kind="number"), Column(name="use")]
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    reading = (
        f"{dataset.name}: {kind} images of {width} × {height} pixels in "
        f"{plural(dataset.num_classes, 'class')}. Each channel is shifted by its mean "
        f"({_list(dataset.mean)}) and divided by its standard deviation ({_list(dataset.std)}) "
        "over the training images."
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in dataset.notes)
    listed = f'<ul class="notes">{notes}</ul>' if notes else ""
    return section("The data", prose(reading), table(columns, rows), listed, anchor="data")


def _list(values: Sequence[float]) -> str:
    shown = ", ".join(number(value) for value in values[:8])
    return shown + (" …" if len(values) > 8 else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """One value of a recipe: the section it is in, its name, what it is and what it would be."""

    group: str
    name: str
    value: Any
    default: Any

    @property
    def changed(self) -> bool:
        """Whether the recipe says something else than the default."""
        return bool(self.value != self.default)


def options(recipe: Recipe) -> tuple[Option, ...]:
    """Every value of a recipe with its default, in the recipe's order.

    >>> from leadline.data.options import DataOptions
    >>> recipe = Recipe(data=DataOptions(data="digits"), seed=3)
    >>> [(o.name, o.value, o.default) for o in options(recipe) if o.group == "recipe"]
    [('task', 'classification', 'classification'), ('seed', 3, 0)]
    """
    found = []
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found += [_option(field.name, inner, value) for inner in dataclasses.fields(value)]
        else:
            found.append(_option("recipe", field, recipe))
    return tuple(sorted(found, key=lambda option: option.group == "recipe"))


def _option(group: str, field: dataclasses.Field[Any], owner: Any) -> Option:
    return Option(
        group=group, name=field.name, value=getattr(owner, field.name), default=field.default
    )


def recipe_section(recipe: Recipe) -> str:
    """What differs from the defaults, and folded away every value."""
    every = options(recipe)
    changed = [option for option in every if option.changed]
    columns = [
        Column(name="part"),
        Column(name="option", kind="code"),
        Column(name="value", kind="number"),
        Column(name="default", kind="number"),
    ]
    reading = (
        f"Everything that defines the result, apart from the data themselves, is in recipe.json. "
        f"{plural(len(changed), 'value')} of {len(every)} are not the default."
    )
    return section(
        "The recipe",
        prose(reading),
        table(columns, _option_rows(changed)),
        folded("every value", table(columns, _option_rows(every))),
        anchor="recipe",
    )


def _option_rows(chosen: Iterable[Option]) -> list[list[str]]:
    rows, before = [], ""
    for option in chosen:
        group = option.group if option.group != before else ""
        before = option.group
        value = escape(plain_value(option.value))
        missing = option.default is dataclasses.MISSING
        rows.append(
            [
                escape(group),
                escape(option.name),
                f"<b>{value}</b>" if option.changed else value,
                "–" if missing else escape(plain_value(option.default)),
            ]
        )
    return rows


def plain_value(value: Any) -> str:
    """A recipe's value in words.

    >>> plain_value(None), plain_value(True), plain_value(0.0005), plain_value((0.9, 0.999))
    ('not set', 'yes', '0.0005', '0.9, 0.999')
    """
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(plain_value(entry) for entry in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def environment_section(history: Sequence[Mapping[str, Any]]) -> str:
    """The machine, the versions, how it was computed, and what tuning measured before."""
    starts = [row for row in history if row["event"] in ("start", "resume")]
    tuned = [row for row in history if row["event"] == "tuning"]
    parts = []
    if starts:
        newest = starts[-1]
        parts.append(
            prose(
                f"Computed as: {_describe(newest['execution'])}. This changes how fast the "
                "training runs, not what it means."
            )
        )
        if len(starts) > 1:
            again = plural(len(starts) - 1, "time")
            parts.append(prose(f"The training was interrupted and resumed {again}."))
        rows = [
            [escape(MACHINE_WORDS.get(key, key)), escape(_fact(key, value))]
            for key, value in newest["machine"].items()
        ]
    else:
        rows = []
    rows += [[escape(name), escape(_version(name))] for name in PACKAGES]
    parts.append(table([Column(name="what"), Column(name="which")], rows))
    if tuned and tuned[-1].get("timings"):
        parts.append(_tuning(tuned[-1]))
    return section("The environment", *parts, anchor="environment")


def _tuning(row: Mapping[str, Any]) -> str:
    """The candidates that were timed, the fastest first."""
    timings = sorted(row["timings"], key=lambda t: t["seconds"] or float("inf"))
    fastest = timings[0]["seconds"]
    rows = [
        [
            escape(_describe(timing["execution"])),
            f"{1000 * timing['seconds']:.1f} ms" if timing["seconds"] else "–",
            f"{timing['seconds'] / fastest:.2f} ×" if timing["seconds"] and fastest else "–",
            escape(timing.get("remark", "")),
        ]
        for timing in timings
    ]
    columns = [
        Column(name="execution"),
        Column(name="one step", kind="number"),
        Column(name="of the fastest", kind="number"),
        Column(name="remark"),
    ]
    reading = "Before the training, a few steps were timed each way, and the fastest was kept:"
    return prose(reading) + table(columns, rows)


def _describe(execution: Mapping[str, Any]) -> str:
    return Execution(**execution).describe()


def _fact(key: str, value: object) -> str:
    if key == "memory" and isinstance(value, int):
        return size(value)
    return plain_value(value)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
