"""A disk that fails at the N-th operation, for every N: it is said, and the run goes on later."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leadline.core.errors import FileError
from leadline.data.options import DataOptions
from leadline.training.execution import Execution
from leadline.training.recipe import Recipe
from leadline.training.run import Run
from leadline.training.setup import Setup
from leadline.training.train import train_setup


def make_setup() -> Setup:
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(4, 3, generator=generator), torch.randint(0, 2, (4,), generator=generator))
        for _ in range(3)
    ]
    return Setup(
        model=lambda: nn.Linear(3, 2),
        batches=batches,
        loss=nn.functional.cross_entropy,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.1),
        epochs=2,
    )


def train(run: Run) -> list[torch.Tensor]:
    state = train_setup(make_setup(), run=run, execution=Execution(), save_interval=0.0)
    return list(state.model.state_dict().values())


@contextmanager
def failing_at(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number-th open for writing, fsync or rename raises; yields the count so far."""
    count = [0]

    def broken(original: Callable, writes: Callable[..., bool]) -> Callable:
        def call(*args: object, **named: object) -> object:
            if writes(*args, **named):
                count[0] += 1
                if count[0] == number:
                    raise OSError(code, os.strerror(code))
            return original(*args, **named)

        return call

    def opens_for_writing(path: Path, mode: str = "r", *_: object, **__: object) -> bool:
        return any(letter in mode for letter in "wax")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken(os.fsync, lambda *_: True))
        patch.setattr(Path, "replace", broken(Path.replace, lambda *_: True))
        patch.setattr(Path, "open", broken(Path.open, opens_for_writing))
        yield count


def count_operations(root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    run = Run.create(Recipe(data=DataOptions(data="digits")), root=root)
    with failing_at(-1, 0, monkeypatch) as count:
        train(run)
    return count[0]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["disk full", "I/O error"])
def test_a_failure_at_any_operation_is_said_and_the_run_resumes_exactly(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = train(Run.create(Recipe(data=DataOptions(data="digits")), root=tmp_path))
    operations = count_operations(tmp_path, monkeypatch)
    assert operations > 30
    for number in range(1, operations + 1):
        run = Run.create(Recipe(data=DataOptions(data="digits")), root=tmp_path)
        with (
            failing_at(number, code, monkeypatch),
            pytest.raises(FileError, match=os.strerror(code)),
        ):
            train(run)
        assert not list(run.folder.rglob("*.tmp")), f"operation {number} left rubbish"
        resumed = train(run)
        assert all(torch.equal(a, b) for a, b in zip(resumed, undisturbed, strict=True)), number
        steps = [row["step"] for row in run.history() if row["event"] == "step"]
        assert steps == list(range(1, 7)), f"after a failure at operation {number}"


QUICK = ("digits", "--model", "mlp", "--width", "4", "--epochs", "1", "--batch-size", "500")


def test_a_disk_that_fails_before_or_after_the_steps_is_said_and_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leadline: Any
) -> None:
    """Making the folder, or saving the model, the end, the report and the card, one by one."""

    def train(number: int) -> tuple[Any, list[int]]:
        runs = tmp_path / str(number)
        runs.mkdir()
        with failing_at(number, errno.ENOSPC, monkeypatch) as count:
            said = leadline("train", *QUICK, "--precision", "float32", "--runs", runs)
        return said, count

    whole, operations = train(-1)
    assert whole.code == 0 and operations[0] > 25
    last = operations[0] + 1  # the model and what follows take fourteen, the folder four
    for number in (*range(1, 5), *range(last - 14, last)):
        said, _ = train(number)
        assert said.code == 1, f"operation {number}"
        assert said.err.startswith("error: FileError\nexpected to ")
        assert f"received {os.strerror(errno.ENOSPC)}" in said.err
        assert not list((tmp_path / str(number)).rglob("*.tmp"))
        for folder in (tmp_path / str(number)).iterdir():
            resumed = leadline("train", "--resume", folder)
            if resumed.code and not Run.open(folder).card_file.exists():
                assert f"leadline report {folder}" in resumed.err
                assert leadline("report", folder).code == 0
            run = Run.open(folder)
            assert run.metrics == Run.open(tmp_path / "-1" / "digits-001").metrics
            assert run.report_file.exists() and run.card_file.exists()
