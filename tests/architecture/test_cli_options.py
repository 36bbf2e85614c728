"""Tests that no option of the command line changes unnoticed: name, values or default.

After a change that is meant, write them anew with

    UPDATE_CLI_OPTIONS=1 python -m pytest tests/architecture/test_cli_options.py

and let the difference in cli_options.json be part of the commit.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from leadline.cli.main import VERBS, module_of, run
from leadline.core.config import to_plain

# These are words of their own, without a name before them.
POSITIONAL = {"what", "run", "images", "subject", "file"}
GOLDEN = Path(__file__).with_name("cli_options.json")
COMMAND = "UPDATE_CLI_OPTIONS=1 python -m pytest tests/architecture/test_cli_options.py"


def options(verb: str) -> dict[str, dict[str, Any]]:
    """The options of a verb, in order: what each may be, and what it is when it is left out."""
    module = importlib.import_module(module_of(verb))
    (cls,) = (
        value
        for name, value in vars(module).items()
        if name == f"{verb.capitalize()}Options" and dataclasses.is_dataclass(value)
    )
    return dict(flattened(cls, default=None))


def flattened(cls: type[Any], *, default: Any) -> list[tuple[str, dict[str, Any]]]:
    """The fields of a class and of the classes in it; `default` has their values, where known."""
    hints = get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        value = default_of(field) if default is None else getattr(default, field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            found += flattened(hints[field.name], default=value)
            continue
        entry = {"values": values(hints[field.name])}
        if value is not dataclasses.MISSING:
            entry["default"] = str(value) if isinstance(value, Path) else to_plain(value)
        name = (
            field.name
            if field.name in POSITIONAL
            else f"--{field.name.rstrip('_').replace('_', '-')}"
        )
        found.append((name, entry))
    return found


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def values(hint: Any) -> Any:
    """The choices of a Literal, or the name of a type."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_args(hint) and Literal in map(get_origin, get_args(hint)):
        return [choice for part in get_args(hint) for choice in values(part)]
    if hint is type(None):
        return [None]
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def test_the_options_of_every_verb_are_those_written_down() -> None:
    found = {verb: options(verb) for verb in VERBS}
    if os.environ.get("UPDATE_CLI_OPTIONS"):
        lines = json.dumps(found, indent=2)
        GOLDEN.write_text(re.sub(r"\{\s+(\"values\".*?)\s+\}", one_line, lines, flags=re.S) + "\n")
    assert found == json.loads(GOLDEN.read_text()), (
        f"the options changed; if that is meant, run\n    {COMMAND}\nand commit {GOLDEN.name}"
    )


def one_line(entry: re.Match[str]) -> str:
    return "{" + " ".join(entry[1].split()).replace("[ ", "[").replace(" ]", "]") + "}"


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_shows_these_options_and_no_others(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert run([verb, "--help"]) == 0
    shown = re.findall(r"^\W*(--[a-z][\w-]*)[ ,]", capsys.readouterr().out, flags=re.M)
    assert set(shown) == set(options(verb)) - POSITIONAL
    assert len(shown) == len(set(shown)), "an option is shown twice"
