"""The journal of a run: one JSON object a line, from the first step to the end.

Steps are gathered and their scalars fetched from the device together, every `INTERVAL` seconds,
so that writing the journal costs no wait per step. After a kill the lines past the checkpoint that
is resumed are cut off: the journal then tells the one history that led to the weights.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from leadline.core.errors import FileError
from leadline.core.files import write_atomic
from leadline.training.step import Step

INTERVAL = 1.0
"""Seconds between two writes of the gathered steps."""


Rows = list[dict[str, Any]]


class Journal:
    """Writes `journal.jsonl`.

    `more` gives the rows that somebody else gathered since it was last asked; they are written
    with the steps.
    """

    def __init__(self, path: Path, *, more: Callable[[], Rows] | None = None) -> None:
        self._path = path
        self._more = more
        self._pending: list[Step] = []
        self._written = time.monotonic()

    def step(self, step: Step) -> None:
        """Take a step; it reaches the file within about `INTERVAL` seconds."""
        self._pending.append(step)
        if time.monotonic() - self._written > INTERVAL:
            self.flush()

    def event(self, name: str, **values: Any) -> None:
        """Write one line of another kind, after all the steps before it."""
        self.flush(extra=[{"event": name, **values}])

    def flush(self, *, extra: Rows | None = None) -> None:
        """Bring everything gathered to the file and to the disk."""
        rows = _rows(self._pending) + (self._more() if self._more else []) + (extra or [])
        self._pending = []
        self._written = time.monotonic()
        if not rows:
            return
        try:
            with self._path.open("a") as stream:
                stream.write("".join(json.dumps(row) + "\n" for row in rows))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise FileError(
                expected=f"to append to {self._path}",
                received=f"{error.strerror or error} ({type(error).__name__})",
                remedy="free some space, then go on with --resume; the last checkpoint is intact",
            ) from error


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The rows of a journal; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def cut_journal(path: Path, *, step: int) -> None:
    """Drop the lines past `step`, which a resumed run is about to write anew."""
    rows = [row for row in read_journal(path) if row.get("step", 0) <= step]
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))


def _rows(steps: list[Step]) -> list[dict[str, Any]]:
    if not steps:
        return []
    scalars = torch.stack([torch.stack([step.loss, step.grad_norm]) for step in steps]).tolist()
    rows: list[dict[str, Any]] = []
    for step, (loss, norm) in zip(steps, scalars, strict=True):
        rows.append(
            {
                "event": "step",
                "step": step.index,
                "epoch": step.epoch,
                "loss": loss,
                "lr": step.lr,
                "examples": step.examples,
                "grad_norm": norm,
            }
        )
    return rows
