"""Tests that every dependency is pinned for development, bounded from below, and accounted for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?P<bound>.*)")
# Installed by the Makefile, for the tests alone; the rest of ORACLES is what these import.
BESIDE = {"torchvision", "timm", "curvlinops-for-pytorch"}


def plain(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(root: Path) -> dict[str, str]:
    """Every package in pyproject.toml with its bound."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    entries = [entry for each in lists for entry in each]
    matches = [REQUIREMENT.match(entry) for entry in entries if not entry.startswith("leadline[")]
    return {plain(match["name"]): match["bound"] for match in matches if match}


def pins(root: Path) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text().splitlines()
    entries = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert all(version for _, _, version in entries), "a line is no exact pin"
    return {plain(name): version for name, _, version in entries}


def test_every_dependency_is_pinned_exactly(root: Path) -> None:
    assert not (set(required(root)) | BESIDE) - set(pins(root))


def test_a_pin_fits_every_build_of_its_version(root: Path) -> None:
    assert not {name for name, version in pins(root).items() if "+" in version}


def test_nothing_is_bounded_from_above(root: Path) -> None:
    bounds = required(root)
    assert not {name for name, bound in bounds.items() if not re.fullmatch(r">=[\d.]+", bound)}


def test_every_dependency_is_accounted_for(root: Path) -> None:
    page = plain((root / "docs" / "dependencies.md").read_text(encoding="utf-8"))
    assert not {name for name in set(required(root)) | BESIDE if name not in page}


def test_the_makefile_installs_the_oracles_by_name_each_with_a_pin(root: Path) -> None:
    text = (root / "Makefile").read_text()
    block = text.partition("ORACLES := ")[2].partition("\n\n")[0].replace("\\", " ")
    assert set(block.split()) >= BESIDE
    assert {plain(name) for name in block.split()} <= set(pins(root))
    assert "--no-deps --target $(VENV)/oracles $(ORACLES)" in text
