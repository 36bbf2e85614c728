"""leadline list [NAME]: the recipes, models, data sets and measurements there are; or one model.

With the name of a model: what it is, what it can be asked for, and what each of its layers costs.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

import torch
import tyro

from leadline.cli.options import parse
from leadline.core.config import check, in_range
from leadline.core.names import look_up
from leadline.data.load import list_datasets
from leadline.measure.catalogue import MEASUREMENTS
from leadline.measure.summary import Summary, summary
from leadline.models.architecture import Blueprint, own_choices
from leadline.models.create import FAMILIES, create_model, list_models
from leadline.recipes.catalogue import RECIPES

WIDTH = 96  # characters of a line


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """The words after `leadline list`."""

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """a model's name, to see it alone"""
    image_size: int | None = None
    """side of its images in pixels; that of the original unless given"""
    in_chans: int = 3
    """channels of its images"""
    num_classes: int = 1000
    """classes it tells apart"""

    def __post_init__(self) -> None:
        check(
            self,
            in_range("image_size", self.image_size, 1),
            in_range("in_chans", self.in_chans, 1),
            in_range("num_classes", self.num_classes, 1),
        )


def run(words: list[str], *, as_json: bool) -> int:
    """Print the lists, or one model; the exit code."""
    options = parse(ListOptions, words, verb="list", caption=__doc__ or "")
    if options.what:
        return _one(options, as_json=as_json)
    if as_json:
        print(
            json.dumps(
                {
                    "recipes": {name: entry.caption for name, entry in RECIPES.items()},
                    "models": list(list_models()),
                    "datasets": list(list_datasets()),
                    "measurements": {m.name: m.question for m in MEASUREMENTS},
                }
            )
        )
        return 0
    print("recipes (leadline train NAME)")
    for name, entry in RECIPES.items():
        print(f"  {name:<20}{entry.caption}")
    print("models (--model NAME; leadline list NAME shows one)")
    for names, caption in families():
        _paragraph(", ".join(names), indent="  ")
        _paragraph(caption, indent="      ")
    print("data sets (--data NAME, or a path to a folder with a class per sub-folder)")
    print(f"  {', '.join(list_datasets())}")
    print("measurements (from leadline.measure; costs in docs/measure.md)")
    for measurement in MEASUREMENTS:
        print(f"  {measurement.name:<26}{measurement.question}")
    return 0


def families() -> list[tuple[list[str], str]]:
    """The names that one class of models builds, and its caption: that of the first of them.

    >>> [names[:2] for names, _ in families()][:2]
    [['mlp'], ['convnet']]
    """
    groups: dict[object, list[str]] = {}
    for name in list_models():
        groups.setdefault(FAMILIES[name].build, []).append(name)
    return [(names, FAMILIES[names[0]].caption) for names in groups.values()]


def _paragraph(text: str, *, indent: str) -> None:
    print(textwrap.fill(text, width=WIDTH, initial_indent=indent, subsequent_indent=indent))


def _one(options: ListOptions, *, as_json: bool) -> int:
    family = look_up(options.what, FAMILIES, kind="model")
    size = options.image_size or family.image_size
    with torch.device("meta"):
        model = create_model(
            options.what,
            num_classes=options.num_classes,
            in_chans=options.in_chans,
            image_size=size,
        )
    costs = summary(model, (options.in_chans, size, size))
    if as_json:
        defaults = dataclasses.asdict(family.defaults)
        told = {
            "name": options.what,
            "caption": family.caption,
            "defaults": defaults,
            "own": list(own_choices(family)),
            "fixed": sorted(family.fixed),
            "image_size": size,
            "smallest": model.smallest,
            "summary": costs.to_plain(),
        }
        print(json.dumps(told))
        return 0
    _describe(options.what, costs, size=size, smallest=model.smallest)
    return 0


def _describe(name: str, costs: Summary, *, size: int, smallest: int) -> None:
    family = FAMILIES[name]
    print(f"{name}  {family.caption}")
    print(f"images    {size} x {size} pixels here, {smallest} x {smallest} at least")
    shared = [field.name for field in dataclasses.fields(Blueprint)]
    print("choices   (--NAME VALUE; in Python as keywords of create_model)")
    for choice in shared:
        value = getattr(family.defaults, choice)
        print(f"  {choice:<20}{value}{'   (has this alone)' if choice in family.fixed else ''}")
    own = own_choices(family)
    if own:
        print("own       (--options NAME=VALUE; in Python as keywords of create_model)")
        hints = get_type_hints(type(family.defaults))
        for choice, value in own.items():
            allowed = ", ".join(map(str, _allowed(hints[choice])))
            print(f"  {choice:<20}{value}{f'   of {allowed}' if allowed else ''}")
    print()
    print(costs)


def _allowed(hint: Any) -> tuple[Any, ...]:
    """The values of a Literal, also of several joined; nothing for other types."""
    found: list[Any] = []
    for part in get_args(hint):
        found += _allowed(part) or ([part] if isinstance(part, str | int) else [])
    return tuple(found)
