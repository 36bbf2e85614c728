"""Signals, kills and damaged files, met through the command line: what is saved is never lost."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from leadline.cli.main import run as leadline_run
from leadline.training.checkpoint import checkpoint_files, newest_checkpoint
from leadline.training.run import Run

STEPS = 620  # about a second: enough to be hit in the middle
TRAIN = (
    *("train", "digits", "--model", "mlp", "--depth", "2", "--width", "8", "--dropout", "0.1"),
    *("--precision", "float32", "--batch-size", "43", "--epochs", "20", "--save-interval", "0.05"),
)
KILLS = 5
BETWEEN = 0.5  # seconds between two signals, so that they are not taken for one


def quietly(*words: object) -> int:
    """Call the command line in this process and keep what it says; its exit code."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return leadline_run([str(word) for word in words])


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As many threads as the processes have, so that sums are taken in one order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nobody disturbed."""
    root = tmp_path_factory.mktemp("unbroken")
    assert quietly(*TRAIN, "--runs", root) == 0
    return Run.open(root / "digits-001")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, process: Any) -> Run:
    """The folder of a run that a real SIGINT stopped on its way, with two checkpoints."""
    root = tmp_path_factory.mktemp("interrupted")
    run = Run(root / "digits-001")
    training = process(*TRAIN, "--runs", root)
    training.wait_until(lambda: len(checkpoint_files(run.checkpoints)) == 2)
    training.send(signal.SIGINT)
    said = training.end()
    assert said.code == 130
    assert said.err == (
        f"SIGINT: the training is saved; go on with leadline train --resume {run.folder}\n"
    )
    assert not run.model_file.exists()
    return run


@pytest.fixture
def broken(interrupted: Run, tmp_path: Path) -> Run:
    """A copy of the interrupted run, to do things to."""
    return Run(Path(shutil.copytree(interrupted.folder, tmp_path / "broken")))


def newest_step(run: Run) -> int:
    """The step of the newest checkpoint that passes its hash; 0 where there is none."""
    found = newest_checkpoint(run.checkpoints)
    return int(found.state["counters"]["step"]) if found else 0


def assert_same(one: Run, other: Run) -> None:
    """The same weights to the last bit, and the same history."""
    first, second = load_file(one.model_file), load_file(other.model_file)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    histories = [
        [(row["step"], row["loss"]) for row in run.history() if row["event"] == "step"]
        for run in (one, other)
    ]
    assert histories[0] == histories[1]
    assert [step for step, _ in histories[0]] == list(range(1, len(histories[0]) + 1))
    assert one.metrics == other.metrics


def test_an_interrupted_run_ends_as_the_unbroken_one_bit_for_bit(
    broken: Run, unbroken: Run, leadline: Any
) -> None:
    step = newest_step(broken)
    assert broken.event("stopped") == {"event": "stopped", "step": step, "signal": signal.SIGINT}
    assert 0 < step < STEPS
    said = leadline("train", "--resume", broken.folder)
    assert said.code == 0 and said.err == ""
    assert f", from step {step} (step-{step:08d}.safetensors)\n" in said.out
    assert_same(broken, unbroken)


def test_sigterm_saves_and_exits_with_143_and_meanwhile_no_second_writer_is_let_in(
    tmp_path: Path, process: Any, leadline: Any, unbroken: Run
) -> None:
    run = Run(tmp_path / "digits-001")
    training = process(*TRAIN, "--runs", tmp_path)
    training.wait_until(lambda: bool(checkpoint_files(run.checkpoints)))
    second = leadline("train", "--resume", run.folder)
    training.send(signal.SIGTERM)
    said = training.end()
    assert second.code == 1
    assert second.err == (
        "error: RunLockedError\n"
        f"expected to be the only one writing {run.folder}\n"
        "received a lock that another process holds\n"
        "do this  wait for it to end, stop it, or start a new run\n"
    )
    assert said.code == 143
    assert "SIGTERM: the training is saved" in said.err and "Traceback" not in said.err
    assert newest_step(run) == run.event("stopped")["step"]  # type: ignore[index]
    assert leadline("train", "--resume", run.folder).code == 0
    assert_same(run, unbroken)


def test_a_second_sigint_quits_within_the_step_and_saves_nothing(
    tmp_path: Path, process: Any
) -> None:
    run = Run(tmp_path / "digits-001")
    slow = ("--model", "resnet56", "--image-size", "32", "--batch-size", "1000")  # many seconds
    training = process("train", "digits", "--precision", "float32", *slow, "--runs", tmp_path)
    training.wait_until(lambda: run.event("start") is not None)
    time.sleep(BETWEEN)  # by then the first step is under way
    training.send(signal.SIGINT)
    time.sleep(BETWEEN)
    training.send(signal.SIGINT)
    said = training.end()
    assert said.code == 130
    assert said.err == "interrupted\n"
    assert checkpoint_files(run.checkpoints) == []


def test_killed_at_any_moment_it_resumes_and_loses_nothing_that_was_saved(
    tmp_path: Path, process: Any, leadline: Any, unbroken: Run
) -> None:
    run = Run(tmp_path / "digits-001")
    chance = random.Random(0)
    command: tuple[object, ...] = (*TRAIN, "--runs", tmp_path)
    for _ in range(KILLS):
        before = newest_step(run)
        further = before + chance.randrange(1, STEPS // (4 * KILLS))
        training = process(*command, "--save-interval", "0.02")
        training.wait_until(lambda further=further: reached(run) > further)
        whole = reached(run)
        training.send(signal.SIGKILL)
        assert training.end().code == -signal.SIGKILL
        assert newest_step(run) >= whole > before
        command = ("train", "--resume", run.folder)
    assert leadline("train", "--resume", run.folder).code == 0
    assert_same(run, unbroken)


def step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def reached(run: Run) -> int:
    """The newest step that has a checkpoint, by its name: renamed into place, therefore whole."""
    return max([0, *map(step_of, checkpoint_files(run.checkpoints))])


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def zero(content: bytes) -> bytes:
    return bytes(len(content))


@pytest.mark.parametrize(("damage", "words"), [(cut, ()), (flip, ()), (zero, ("--json",))])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    damage: Any, words: tuple[str, ...], broken: Run, unbroken: Run, leadline: Any
) -> None:
    newest, older = checkpoint_files(broken.checkpoints)
    newest.write_bytes(damage(newest.read_bytes()))
    said = leadline("train", "--resume", broken.folder, *words)
    assert said.code == 0
    assert said.err == f"damaged   {newest}: passed over for the newest valid checkpoint\n"
    told = f", from step {step_of(older)} ({older.name})\n" in said.out
    assert told or (words and len(said.out.splitlines()) == 1)
    assert broken.event("resume")["damaged"] == [newest.name]  # type: ignore[index]
    assert_same(broken, unbroken)


def test_when_every_checkpoint_is_damaged_all_are_named_and_nothing_is_overwritten(
    broken: Run, leadline: Any
) -> None:
    names = []
    for path in checkpoint_files(broken.checkpoints):
        path.write_bytes(zero(path.read_bytes()))
        names.append(path.name)
    journal = broken.journal.read_bytes()
    said = leadline("train", "--resume", broken.folder)
    assert said.code == 1
    assert f"received only damaged ones: {', '.join(names)}" in said.err
    assert "delete them to start this run from its first step" in said.err
    assert broken.journal.read_bytes() == journal
