"""The command line called in this process, and one trained run that its tests share."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from leadline.cli.main import run

QUICK = ("--epochs", "1", "--batch-size", "64", "--width", "4", "--precision", "float32")


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command said: its exit code, and what it wrote to the two streams."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> dict[str, Any]:
        """The JSON object on the last line of standard output."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A terminal of a hundred columns, and caches that nobody else sees."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LEADLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def leadline(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call the command line with some words."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return Said(code=code, out=out, err=err)

    return call


@pytest.fixture(scope="session")
def quick() -> tuple[str, ...]:
    """The options of a training that takes a tenth of a second."""
    return QUICK


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short, finished training on scikit-learn's digits; read only."""
    root = tmp_path_factory.mktemp("runs")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert run(["train", "digits", *QUICK, "--runs", str(root)]) == 0
    return root / "digits-001"
