"""Tests that imports go down only, at the top of the file, and skip what they must not know."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# DESIGN: the layers, top first; what stands on one line does not import one another.
LAYERS = [
    {"cli"},
    {"lab"},
    {"recipes"},
    {"report"},
    {"doctor"},
    {"training"},
    {"measure", "explain", "robust"},
    {"tasks"},
    {"models", "data", "optim"},
    {"nn"},
    {"core"},
]

# Downward, and forbidden all the same: diagnostics work on anybody's module, and the loop knows
# nothing of those who watch it.
STRANGERS = {
    "measure": {"models", "data"},
    "explain": {"models", "data"},
    "robust": {"models", "data"},
    "training": {"measure", "explain", "robust"},
}

# The named places of rule 2: the package itself, which fetches a name when it is first used.
LAZY: frozenset[str] = frozenset()


def contract(root: Path) -> dict[str, Any]:
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    (only,) = settings["contracts"]
    assert isinstance(only, dict)
    return only


def imported_by(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_the_contract_is_that_of_the_design_without_exceptions(root: Path) -> None:
    written = contract(root)
    layers = [{part.strip(" ()") for part in line.split("|")} for line in written["layers"]]
    assert layers == LAYERS
    assert written["exhaustive"] is True
    assert written["exhaustive_ignores"] == ["__main__"]
    assert "ignore_imports" not in written


def test_a_layer_that_exists_is_not_optional(root: Path) -> None:
    optional = {
        part.strip(" ()")
        for line in contract(root)["layers"]
        for part in line.split("|")
        if "(" in part
    }
    there = {folder.name for folder in (root / "src" / "leadline").iterdir() if folder.is_dir()}
    assert not optional & there, "take the parentheses off in pyproject.toml"


def test_imports_go_down_only(root: Path, environment: dict[str, str]) -> None:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    result = subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--config", "pyproject.toml"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 kept, 0 broken" in result.stdout


def test_diagnostics_know_no_models_and_the_loop_knows_no_diagnostics(sources: Any) -> None:
    offences = [
        f"{source.name} imports {module}"
        for source in sources
        for module in imported_by(source.tree)
        for stranger in STRANGERS.get(source.name.partition("/")[0], ())
        if f"{module}.".startswith(f"leadline.{stranger}.")
    ]
    assert not offences


def test_imports_stand_at_the_top_of_their_file(sources: Any) -> None:
    offences = [
        f"{source.name}:{node.lineno} in {function.name}"
        for source in sources
        if source.name not in LAZY
        for function in ast.walk(source.tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not offences
