"""The named recipes, and the way from a name, a path or a Recipe to one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from leadline.core.config import from_json
from leadline.core.errors import ConfigError, UnknownNameError
from leadline.core.names import did_you_mean
from leadline.recipes import (
    cifar10,
    digits,
    digits_1001,
    digits_1001_plain,
    fashion_mnist,
    mnist,
)
from leadline.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A named recipe with its caption: the first line of its file."""

    recipe: Recipe
    caption: str


RECIPES: dict[str, Entry] = {
    name: Entry(recipe=module.RECIPE, caption=(module.__doc__ or "").splitlines()[0])
    for name, module in {
        "digits": digits,
        "digits_1001": digits_1001,
        "digits_1001_plain": digits_1001_plain,
        "mnist": mnist,
        "fashion_mnist": fashion_mnist,
        "cifar10": cifar10,
    }.items()
}


def is_path(what: str) -> bool:
    """Whether `what` means a place on the disk rather than a recipe's name."""
    return what not in RECIPES and ("/" in what or what.startswith(".") or os.path.exists(what))


def find_recipe(name: str) -> Recipe:
    """The recipe of a name, or an error that names what there is.

    >>> find_recipe("digits").data.data
    'digits'
    """
    if name in RECIPES:
        return RECIPES[name].recipe
    raise UnknownNameError(
        expected=f"the name of a recipe ({', '.join(RECIPES)}) or a path to data",
        received=f"{name!r}{did_you_mean(name, RECIPES)}, and no file or folder of that name",
        remedy="use one of the names, or check the path",
    )


def read_recipe(path: Path) -> Recipe:
    """The recipe in a JSON file, or an error that lists all that is wrong with it."""
    if not path.is_file():
        raise ConfigError(
            expected="a recipe's JSON file",
            received=f"{path}, which {'is a folder' if path.is_dir() else 'does not exist'}",
            remedy="check the path; every run folder has a recipe.json",
        )
    return from_json(Recipe, path.read_text(errors="replace"), source=str(path))
