"""What the architecture tests look at: the repository's files, read and parsed once."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One Python file of the library; `name` is its path below src/leadline."""

    name: str
    text: str
    tree: ast.Module

    @property
    def caption(self) -> str:
        """The first line of the file's docstring."""
        return (ast.get_docstring(self.tree) or "").partition("\n")[0]

    @property
    def has_code(self) -> bool:
        """Whether there is more in it than a docstring and imports."""
        inert = (ast.Expr, ast.Import, ast.ImportFrom)
        return any(not isinstance(statement, inert) for statement in self.tree.body)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def sources() -> tuple[Source, ...]:
    """Every Python file of the library, in order."""
    package = ROOT / "src" / "leadline"
    files = tuple(
        Source(
            name=path.relative_to(package).as_posix(),
            text=(text := path.read_text(encoding="utf-8")),
            tree=ast.parse(text, filename=str(path)),
        )
        for path in sorted(package.rglob("*.py"))
    )
    assert files, "no source file was found: these tests would prove nothing"
    return files


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment for a fresh Python that finds this checkout's library first."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}
