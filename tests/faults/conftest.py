"""The command line, called in this process and as a process of its own that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from leadline.cli.main import run

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command said: its exit code, and what it wrote to the two streams."""

    code: int
    out: str
    err: str


class Process:
    """`leadline …` as a process of its own, with one thread, so that its sums have one order."""

    def __init__(self, *words: object) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "leadline", *map(str, words)],
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until(self, there: Callable[[], bool]) -> None:
        """Wait for something that the process does; fail when it ends before."""
        limit = time.monotonic() + 120
        while not there():
            assert self.process.poll() is None, f"ended too early: {self.process.communicate()}"
            assert time.monotonic() < limit, "waited for two minutes"
            time.sleep(0.002)

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self) -> Said:
        """Wait for its end; what it said."""
        out, err = self.process.communicate(timeout=120)
        return Said(code=self.process.returncode, out=out, err=err)


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Caches that nobody else sees, and a folder of its own to stand in."""
    monkeypatch.setenv("LEADLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def leadline(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call the command line in this process."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return Said(code=code, out=out, err=err)

    return call


@pytest.fixture(scope="session")
def process() -> type[Process]:
    """Start the command line as a process of its own."""
    return Process
