"""Run: the folder a training leaves, and the one object that reads and writes it.

    recipe.json         what was trained          journal.jsonl   every step, evaluation and event
    checkpoints/        to resume exactly         model.safetensors   the result
    report.html         for people                README.md       the model card

One process writes a run at a time: it holds a lock on the folder that the operating system drops
when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from leadline.core.config import from_json, to_json
from leadline.core.errors import FileError, RunError, RunLockedError
from leadline.core.files import make_folder, write_atomic
from leadline.training.journal import read_journal
from leadline.training.recipe import Recipe
from leadline.training.trained import TrainedModel, load_model


@dataclass(frozen=True)
class Run:
    """A run folder; every property reads what is on the disk now."""

    folder: Path

    @classmethod
    def create(cls, recipe: Recipe, *, root: Path) -> Run:
        """A new numbered folder under `root`, `digits-001` say, with the recipe in it."""
        make_folder(root)
        stem = re.sub(r"[^\w.-]+", "-", Path(recipe.data.data).name) or "run"
        for number in itertools.count(1):
            folder = root / f"{stem}-{number:03d}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            except OSError as error:
                raise _not_writable(folder, error) from error
            run = cls(folder)
            try:
                make_folder(run.checkpoints)
                run.write_recipe(recipe)
            except FileError:
                shutil.rmtree(folder, ignore_errors=True)  # nothing is in it that could be used
                raise
            return run
        raise AssertionError("the numbers never end")

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """The run in an existing folder."""
        run = cls(Path(folder))
        if not (run.folder / "recipe.json").is_file():
            lack = "no recipe.json in it" if run.folder.is_dir() else "no such folder"
            raise RunError(
                expected="a run folder, with recipe.json in it",
                received=f"{folder} ({lack})",
                remedy="give the folder that `leadline train` printed, runs/digits-001 say",
            )
        return run

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def journal(self) -> Path:
        """The journal file."""
        return self.folder / "journal.jsonl"

    @property
    def model_file(self) -> Path:
        """The trained model; it exists once the training ended."""
        return self.folder / "model.safetensors"

    @property
    def report_file(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    @property
    def card_file(self) -> Path:
        """The model card."""
        return self.folder / "README.md"

    @property
    def recipe(self) -> Recipe:
        """What was trained."""
        path = self.folder / "recipe.json"
        return from_json(Recipe, path.read_text(errors="replace"), source=str(path))

    def write_recipe(self, recipe: Recipe) -> None:
        """Replace the recipe: done once more when a time budget has set the epochs."""
        write_atomic(self.folder / "recipe.json", to_json(recipe))

    def history(self) -> list[dict[str, Any]]:
        """The rows of the journal, oldest first."""
        return read_journal(self.journal)

    def event(self, name: str) -> dict[str, Any] | None:
        """The newest journal row of one kind, or None."""
        return next((row for row in reversed(self.history()) if row["event"] == name), None)

    @property
    def metrics(self) -> dict[str, float]:
        """The test split's figures; empty before the training ended."""
        end = self.event("end")
        return dict(end["metrics"]) if end else {}

    def model(self) -> TrainedModel:
        """The trained model."""
        if not self.model_file.exists():
            raise RunError(
                expected=f"a finished run in {self.folder}",
                received="a run without model.safetensors: its training did not end",
                remedy=f"finish it: leadline train --resume {self.folder}",
            )
        return load_model(self.model_file)

    def predict(self, images: Tensor | npt.NDArray[np.generic]) -> Float[Tensor, "B K"]:
        """Class probabilities of images in memory, [B, C, H, W] as the training's were."""
        return self.model().probabilities(torch.as_tensor(images))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing; a second writer is refused."""
        try:
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _not_writable(self.folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RunLockedError(
                expected=f"to be the only one writing {self.folder}",
                received="a lock that another process holds",
                remedy="wait for it to end, stop it, or start a new run",
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)


def _not_writable(folder: Path, error: OSError) -> FileError:
    return FileError(
        expected=f"to write into {folder}",
        received=f"{error.strerror or error} ({type(error).__name__})",
        remedy="make the folder writable and free some space, or choose another",
    )
