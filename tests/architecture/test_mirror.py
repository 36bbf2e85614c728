"""Tests that the tests mirror the source, file by file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

EXEMPT = ("__init__.py", "__main__.py")  # these only name or start what is tested elsewhere
EXCEPTIONS: frozenset[str] = frozenset()  # files without a test file of their own: none
BESIDE = {"architecture", "benchmarks", "claims", "contracts", "faults", "oracles"}


def mirror(name: str) -> str:
    """Where the tests of the source file `name` belong."""
    path = PurePosixPath(name)
    return (path.parent / f"test_{path.stem.strip('_')}.py").as_posix()


def test_every_source_file_has_a_test_file_of_its_own(root: Path, sources: Any) -> None:
    missing = [
        f"tests/{mirror(source.name)}"
        for source in sources
        if source.has_code
        and PurePosixPath(source.name).name not in EXEMPT
        and source.name not in EXCEPTIONS
        and not (root / "tests" / mirror(source.name)).is_file()
    ]
    assert not missing


def test_every_test_file_has_a_source_file_of_its_own(root: Path, sources: Any) -> None:
    expected = {mirror(source.name) for source in sources}
    tests = root / "tests"
    found = {path.relative_to(tests) for path in tests.rglob("test_*.py")}
    strays = {
        path.as_posix()
        for path in found
        if path.parts[0] not in BESIDE and path.as_posix() not in expected
    }
    assert not strays


def test_every_test_file_tests_something(root: Path) -> None:
    empty = [
        path.relative_to(root).as_posix()
        for path in (root / "tests").rglob("test_*.py")
        if "def test_" not in path.read_text(encoding="utf-8")
    ]
    assert not empty
