"""Tests of the progress reader."""

from __future__ import annotations

import re
from io import StringIO

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from leadline.report.progress import ProgressReader
from leadline.report.terminal import Terminal
from leadline.tasks.classification import Classification
from leadline.training.execution import Execution
from leadline.training.loop import steps
from leadline.training.setup import Setup
from leadline.training.step import Step
from leadline.training.train import Validation


class Watch:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Training:
    """Steps of 10 examples with loss 1, 2, 3 …, four to an epoch, and what is printed of them."""

    def __init__(self, *, epochs: int = 3, terminal: bool = False, quiet: bool = False) -> None:
        self.out = StringIO()
        console = Console(file=self.out, force_terminal=terminal, width=120)
        self.watch = Watch()
        self.setup = Setup(
            model=lambda: nn.Linear(2, 2),
            batches=[(torch.ones(10, 2), torch.zeros(10, dtype=torch.long))] * 4,
            loss=nn.functional.cross_entropy,
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
            epochs=epochs,
            task=Classification(2),
        )
        self.reader = ProgressReader(
            self.setup, terminal=Terminal(quiet=quiet, console=console), clock=self.watch
        )

    def step(self, index: int, *, seconds: float, loss: Tensor | None = None) -> None:
        self.watch.now += seconds
        ends = index % 4 == 0
        epoch = (index - 1) // 4 + 1
        step = Step(
            index=index,
            epoch=epoch,
            loss=torch.tensor(float(index)) if loss is None else loss,
            lr=0.1,
            examples=10,
            grad_norm=torch.tensor(1.0),
            ends_epoch=ends,
        )
        metrics = {"accuracy": 0.978, "loss": 0.1}
        self.reader(step, Validation(epoch=epoch, step=index, metrics=metrics) if ends else None)

    @property
    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()


def test_there_is_one_plain_line_per_epoch() -> None:
    training = Training()
    with training.reader:
        for index in range(1, 13):
            training.step(index, seconds=0.5)
    assert training.lines == [
        "epoch 1/3  loss 2.5  val accuracy 97.8 %  20 examples/s  ETA 0:04",
        "epoch 2/3  loss 6.5  val accuracy 97.8 %  20 examples/s  ETA 0:02",
        "epoch 3/3  loss 10.5  val accuracy 97.8 %  20 examples/s  ETA 0:00",
    ]


def test_epochs_that_fly_by_are_all_told_when_the_reader_looks() -> None:
    training = Training()
    with training.reader:
        for index in range(1, 13):
            training.step(index, seconds=0.01)
    assert [line.split("  ")[:2] for line in training.lines] == [
        ["epoch 1/3", "loss 2.5"],
        ["epoch 2/3", "loss 6.5"],
        ["epoch 3/3", "loss 10.5"],
    ]


def test_an_epoch_that_takes_long_is_told_of_every_minute() -> None:
    training = Training()
    with training.reader:
        for index in range(1, 4):
            training.step(index, seconds=61.0)
    assert [line.split("  ")[1] for line in training.lines] == [
        "step 1/12",
        "step 2/12",
        "step 3/12",
    ]


def test_losses_are_read_a_few_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda losses: reads.append(1) or stack(losses))
    training = Training(epochs=250, terminal=True)
    with training.reader:
        for index in range(1, 1001):
            training.step(index, seconds=0.002)
    assert 4 <= len(reads) <= 10  # two seconds, four looks in each, and the last


def test_a_resumed_training_counts_its_rate_from_where_it_went_on() -> None:
    training = Training()
    with training.reader:
        for index in range(5, 9):
            training.step(index, seconds=1.0)
    assert training.lines == ["epoch 2/3  loss 6.5  val accuracy 97.8 %  10 examples/s  ETA 0:04"]


def test_a_terminal_gets_a_bar_with_the_same_facts() -> None:
    training = Training(terminal=True)
    with training.reader:
        for index in range(1, 13):
            training.step(index, seconds=0.5)
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", training.out.getvalue())
    assert "100 % epoch 3/3  loss 10.5  val accuracy 97.8 %  20 examples/s  ETA 0:00" in shown


def test_a_quiet_terminal_shows_nothing() -> None:
    training = Training(quiet=True)
    with training.reader:
        for index in range(1, 13):
            training.step(index, seconds=0.5)
    assert training.out.getvalue() == ""


def test_an_error_in_the_training_is_passed_on_and_the_bar_taken_down() -> None:
    training = Training(terminal=True)
    with pytest.raises(ZeroDivisionError), training.reader:
        training.step(1, seconds=0.5)
        raise ZeroDivisionError
    assert training.out.getvalue().rstrip("\n").endswith("\x1b[?25h")  # the cursor is back


def test_a_training_without_steps_ends_quietly() -> None:
    training = Training()
    with training.reader:
        pass
    assert training.lines == []


def test_the_steps_of_the_loop_are_what_it_reads() -> None:
    training = Training(epochs=2)
    with training.reader as reader:
        for step in steps(training.setup, Execution()):
            training.watch.now += 1
            reader(step, None)
    assert reader.total_steps == 8
    assert [line.partition("  ")[0] for line in training.lines] == ["epoch 1/2", "epoch 2/2"]
