"""Training into a run folder: journal, saves, validation, patience, and what interrupts them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leadline.data.options import DataOptions
from leadline.tasks.classification import Classification
from leadline.training.execution import Execution
from leadline.training.recipe import Recipe
from leadline.training.run import Run
from leadline.training.setup import Setup
from leadline.training.signals import Stopped
from leadline.training.state import TrainingState
from leadline.training.train import train_setup


def make_run(root: Path) -> Run:
    return Run.create(Recipe(data=DataOptions(data="digits")), root=root)


def make_batches(count: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count * 4, 3, generator=generator)
    targets = (inputs[:, 0] > 0).long()
    return list(zip(inputs.split(4), targets.split(4), strict=True))


def make_setup(**changes) -> Setup:
    options = {
        "model": lambda: nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.1), nn.Linear(8, 2)),
        "batches": make_batches(),
        "loss": nn.functional.cross_entropy,
        "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "epochs": 4,
        "task": Classification(2),
        "validation": make_batches(2),
    }
    return Setup(**{**options, **changes})


def weights_of(state: TrainingState) -> list[torch.Tensor]:
    return [value.clone() for value in state.model.state_dict().values()]


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def train(run: Run, setup: Setup | None = None, **options) -> TrainingState:
    return train_setup(setup or make_setup(), run=run, execution=Execution(), **options)


def test_the_journal_tells_every_step_and_every_validation_once(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    train(run)
    rows = run.history()
    assert [r["step"] for r in rows if r["event"] == "step"] == list(range(1, 25))
    assert [r["epoch"] for r in rows if r["event"] == "validation"] == [1, 2, 3, 4]
    assert rows[0]["event"] == "start"
    assert rows[0]["execution"]["precision"] == "float32"


def test_the_reader_sees_each_step_and_the_validation_at_the_end_of_its_epoch(
    tmp_path: Path,
) -> None:
    seen = []
    train(make_run(tmp_path), reader=lambda step, validation: seen.append((step, validation)))
    assert len(seen) == 24
    assert [v is not None for _, v in seen] == [s.ends_epoch for s, _ in seen]
    assert set(seen[5][1].metrics) >= {"accuracy", "loss"}


class Counter:
    """An observer with a row for every third step."""

    def __init__(self, state: TrainingState) -> None:
        self.done = state.counters.step
        self.waiting: list[dict[str, Any]] = []
        self.open = True

    def step(self, loss: torch.Tensor) -> None:
        assert self.open
        self.done += 1
        if self.done % 3 == 0:
            self.waiting.append({"event": "third", "step": self.done, "loss": loss.item()})

    def rows(self) -> list[dict[str, Any]]:
        rows, self.waiting = self.waiting, []
        return rows

    def close(self) -> None:
        self.open = False


def test_an_observers_rows_are_in_the_journal_once_also_after_a_kill(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    made: list[Counter] = []

    def observe(state: TrainingState) -> Counter:
        made.append(Counter(state))
        return made[-1]

    def stop(step, validation) -> None:
        if step.index == 11:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)  # quits without saving

    with pytest.raises(KeyboardInterrupt):
        train(run, observe=observe, reader=stop, save_interval=0.0)
    train(run, observe=observe)
    assert [counter.open for counter in made] == [False, False]
    assert [r["step"] for r in run.history() if r["event"] == "third"] == list(range(3, 25, 3))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 5, 6, 13])
def test_a_signal_saves_at_the_next_step_and_the_rest_is_exact(
    number: int, at: int, tmp_path: Path
) -> None:
    unbroken = weights_of(train(make_run(tmp_path)))
    run = make_run(tmp_path)

    def send(step, validation) -> None:
        if step.index == at:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as stopped:
        train(run, reader=send)
    assert stopped.value.number == number
    assert [r["step"] for r in run.history()][-1] == at
    resumed = train(run)
    assert_same(weights_of(resumed), unbroken)
    steps = [r["step"] for r in run.history() if r["event"] == "step"]
    assert steps == list(range(1, 25))


def test_a_second_interrupt_quits_without_saving_and_the_last_save_holds(tmp_path: Path) -> None:
    unbroken = weights_of(train(make_run(tmp_path)))
    run = make_run(tmp_path)

    def send_twice(step, validation) -> None:
        if step.index == 9:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(run, reader=send_twice, save_interval=0.0)
    assert_same(weights_of(train(run)), unbroken)


def test_patience_stops_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    setup = make_setup(
        epochs=50,
        patience=3,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.5),
    )
    state = train(run, setup)
    accuracies = [r["metrics"]["accuracy"] for r in run.history() if r["event"] == "validation"]
    assert len(accuracies) == state.counters.epoch < 50
    best = accuracies.index(max(accuracies)) + 1
    assert state.best.epoch == best
    assert state.counters.epoch == best + 3
    inputs = torch.cat([x for x, _ in setup.validation])
    targets = torch.cat([y for _, y in setup.validation])
    state.model.eval()
    accuracy = (state.model(inputs).argmax(1) == targets).float().mean()
    assert accuracy.item() == pytest.approx(max(accuracies))


def test_a_resumed_run_out_of_patience_stops_where_the_unbroken_one_did(tmp_path: Path) -> None:
    setup = make_setup(epochs=50, patience=2)
    unbroken = train(make_run(tmp_path), setup)
    run = make_run(tmp_path)

    def stop(step, validation) -> None:
        if step.index == unbroken.counters.step - 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        train(run, setup, reader=stop)
    resumed = train(run, setup)
    assert resumed.counters.step == unbroken.counters.step
    assert_same(weights_of(resumed), weights_of(unbroken))


def test_a_damaged_newest_checkpoint_is_named_in_the_journal(tmp_path: Path) -> None:
    unbroken = weights_of(train(make_run(tmp_path)))
    run = make_run(tmp_path)

    def stop(step, validation) -> None:
        if step.index == 14:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        train(run, reader=stop, save_interval=0.0)
    newest = sorted(run.checkpoints.iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-10])
    assert_same(weights_of(train(run)), unbroken)
    assert run.event("resume")["damaged"] == [newest.name]
    assert (run.checkpoints / f"{newest.name}.damaged").exists()


def test_a_training_uses_its_own_number_of_threads_and_gives_them_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    seen = []
    train_setup(
        make_setup(),
        run=make_run(tmp_path),
        execution=Execution(threads=before + 1),
        reader=lambda step, validation: seen.append(torch.get_num_threads()),
    )
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_the_journal_says_the_number_of_threads_outright(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    train(run)
    assert run.event("start")["execution"]["threads"] == torch.get_num_threads()
