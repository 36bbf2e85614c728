"""Healing a recipe: what a diagnosis proved, as values of the recipe, and what differs then."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leadline.core.config import from_plain, to_json, to_plain
from leadline.core.errors import LeadlineError
from leadline.data.examples import Dataset
from leadline.doctor.diagnosis import Diagnosis
from leadline.doctor.finding import Finding
from leadline.training.build import build_setup
from leadline.training.recipe import Recipe

KEEPS_WEIGHTS = ("optimizer.", "schedule.", "budget.clip_grad", "budget.epochs", "augmentation.")
"""Values of a recipe that can change while the weights so far are kept."""


@dataclass(frozen=True, kw_only=True)
class Healed:
    """A recipe with the remedies that it can say.

    `applied` are the findings whose remedy is in it, `left` those that are not, each with the
    reason. `paths` are the values that were set.
    """

    recipe: Recipe
    applied: tuple[Finding, ...]
    left: tuple[tuple[Finding, str], ...]
    paths: tuple[str, ...]

    @property
    def keeps_weights(self) -> bool:
        """Whether weights trained under the former recipe can be trained on under this one."""
        return all(path.startswith(KEEPS_WEIGHTS) for path in self.paths)


def heal_recipe(recipe: Recipe, diagnosis: Diagnosis, *, dataset: Dataset) -> Healed:
    """The recipe with the remedies of a diagnosis, as far as a recipe can say them.

    Each remedy is applied whole or not at all, and only where the model and the optimizer can still
    be built for the data.
    """
    applied: list[Finding] = []
    left: list[tuple[Finding, str]] = []
    paths: list[str] = []
    usable = {id(remedy) for remedy in diagnosis.remedies}
    for finding in diagnosis.findings:
        change = finding.change
        if not finding.proven or finding.severity == "note":
            continue
        if change is None or not change.settings:
            left.append((finding, "its remedy is no value of a recipe"))
            continue
        if id(change) not in usable:
            left.append((finding, "its remedy did not help in the trial"))
            continue
        try:
            changed = with_settings(recipe, change.settings)
            setup = build_setup(changed, dataset, device="cpu")
            setup.optimizer(setup.model())
        except LeadlineError as error:
            left.append((finding, f"expected {error.expected}, received {error.received}"))
            continue
        if changed == recipe:
            left.append((finding, "the recipe says it already"))
            continue
        recipe = changed
        applied.append(finding)
        paths += change.settings
    return Healed(
        recipe=recipe, applied=tuple(applied), left=tuple(left), paths=tuple(dict.fromkeys(paths))
    )


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with values at dotted paths; ConfigError for a path or value that does not fit.

    >>> from leadline.data.options import DataOptions
    >>> recipe = with_settings(Recipe(data=DataOptions(data="digits")), {"optimizer.lr": 0.5})
    >>> recipe.optimizer.lr
    0.5
    """
    plain = to_plain(recipe)
    for path, value in settings.items():
        section = plain
        *groups, name = path.split(".")
        for group in groups:
            section = section.setdefault(group, {})
        section[name] = value
    return from_plain(Recipe, plain, source="the healed recipe")


def recipe_diff(before: Recipe, after: Recipe) -> tuple[str, ...]:
    """The lines of recipe.json that differ, with the section each is in.

    >>> from leadline.data.options import DataOptions
    >>> recipe = Recipe(data=DataOptions(data="digits"))
    >>> recipe_diff(recipe, with_settings(recipe, {"optimizer.lr": 0.5}))
    ('  "optimizer": {', '-     "lr": 0.1,', '+     "lr": 0.5,')
    """
    old, new = to_json(before).splitlines(), to_json(after).splitlines()
    lines: list[str] = []
    heading, told = "", ""
    for line in difflib.ndiff(old, new):
        mark, text = line[:1], line[2:]
        if mark == "?":
            continue
        if mark in "+-":
            if heading and heading != told:
                lines.append(heading)
                told = heading
            lines.append(f"{mark} {text}")
        elif text.endswith("{") and text.startswith("  "):
            heading = text
        elif text.startswith("  }"):
            heading = ""
    return tuple(lines)
