"""Tests that what is forbidden is not there: vague names, stray hooks, pickle, machine paths."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

VAGUE = {"utils", "util", "common", "helpers", "helper", "misc", "tools", "base", "stuff"}
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|work|tmp|opt|Users|mnt)/\w")
TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".js", ".css", ".html", ".json", ""}
FOLDERS = ("src", "tests", "docs", "benchmarks", ".ci")


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file with the dotted text of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def pickling(tree: ast.AST) -> set[str]:
    """What a file uses of the modules that pickle; their errors may be caught."""
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            used |= {name.name for name in node.names if name.name in PICKLES - {"pickle"}}
            used |= {name.asname for name in node.names if name.name == "pickle" and name.asname}
        elif isinstance(node, ast.ImportFrom) and (node.module or "") in PICKLES:
            used |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            used.add(f"pickle.{node.attr}")
    return used - {"pickle.PickleError", "pickle.UnpicklingError"}


def loads_code(name: str, call: ast.Call) -> bool:
    """Whether a call can execute what stands in a file."""
    options = {option.arg: ast.unparse(option.value) for option in call.keywords}
    if name == "torch.load":
        return options.get("weights_only") != "True"
    return name in ("eval", "exec") or options.get("allow_pickle", "False") != "False"


def test_no_file_has_a_name_that_says_nothing(sources: Any) -> None:
    named = {
        source.name: set(PurePosixPath(source.name).with_suffix("").parts) for source in sources
    }
    assert not [name for name, parts in named.items() if parts & VAGUE]


def test_hooks_that_listen_are_registered_in_taps_and_those_that_stay_in_grafts(
    sources: Any,
) -> None:
    offences = [
        f"{source.name}:{call.lineno} {name}"
        for source in sources
        if source.name not in ("core/taps.py", "core/grafts.py")
        for name, call in calls(source.tree)
        if re.search(r"\bregister_\w*hook\w*$", name)
    ]
    assert not offences


def test_no_file_that_is_read_can_execute_code(sources: Any) -> None:
    offences = [
        f"{source.name}:{call.lineno} {name}"
        for source in sources
        for name, call in calls(source.tree)
        if loads_code(name, call)
    ]
    offences += [
        f"{source.name} uses {name}" for source in sources for name in pickling(source.tree)
    ]
    assert not offences


@pytest.mark.parametrize(
    ("line", "dangerous"),
    [
        ("torch.load(p)", True),
        ("torch.load(p, weights_only=False)", True),
        ("torch.load(p, weights_only=True)", False),
        ("np.load(p, allow_pickle=True)", True),
        ("np.load(p, allow_pickle=False)", False),
        ("eval(text)", True),
        ("model.eval()", False),
    ],
)
def test_the_search_for_dangerous_calls_finds_them(line: str, dangerous: bool) -> None:
    ((name, call),) = calls(ast.parse(line))
    assert loads_code(name, call) == dangerous


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("import pickle\npickle.loads(b)", {"pickle.loads"}),
        ("from pickle import load", {"pickle.load"}),
        ("import pickle as p", {"p"}),
        ("import joblib", {"joblib"}),
        ("import pickle\ntry: f()\nexcept pickle.UnpicklingError: g()", set()),
    ],
)
def test_the_search_for_pickle_finds_every_way_in(text: str, used: set[str]) -> None:
    assert pickling(ast.parse(text)) == used


def test_no_file_speaks_of_one_machine(root: Path) -> None:
    files = [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file()]
    files += [path for path in root.iterdir() if path.is_file()]
    offences = [
        f"{path.relative_to(root)}: {match[0]}"
        for path in files
        if path.suffix in TEXT and "__pycache__" not in path.parts
        for match in [MACHINE_PATH.search(path.read_text(encoding="utf-8", errors="ignore"))]
        if match
    ]
    assert not offences
