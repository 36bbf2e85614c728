"""The journal: every step once, in order, whatever was interrupted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from leadline.core.errors import FileError
from leadline.training.journal import Journal, cut_journal, read_journal
from leadline.training.step import Step


def make_step(index: int) -> Step:
    return Step(
        index=index,
        epoch=1,
        loss=torch.tensor(1.0 / index),
        lr=0.1,
        examples=4,
        grad_norm=torch.tensor(2.0),
        ends_epoch=False,
    )


def test_steps_and_events_come_back_in_the_order_they_happened(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.step(make_step(1))
    journal.step(make_step(2))
    journal.event("validation", step=2, metrics={"accuracy": 0.5})
    journal.step(make_step(3))
    journal.flush()
    rows = read_journal(tmp_path / "journal.jsonl")
    assert [(row["event"], row["step"]) for row in rows] == [
        ("step", 1),
        ("step", 2),
        ("validation", 2),
        ("step", 3),
    ]
    assert rows[1]["loss"] == 0.5
    assert rows[1]["grad_norm"] == 2.0


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.event("start", step=0)
    with path.open("a") as stream:
        stream.write('{"event": "step", "st')
    assert [row["event"] for row in read_journal(path)] == ["start"]


def test_cutting_drops_what_lies_past_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for index in range(1, 6):
        journal.step(make_step(index))
    journal.flush()
    cut_journal(path, step=3)
    assert [row["step"] for row in read_journal(path)] == [1, 2, 3]


def test_rows_of_others_are_written_with_the_steps(tmp_path: Path) -> None:
    waiting = [{"event": "watch", "step": 1}]

    def more() -> list[dict[str, Any]]:
        rows, waiting[:] = list(waiting), []
        return rows

    journal = Journal(tmp_path / "journal.jsonl", more=more)
    journal.step(make_step(1))
    journal.event("validation", step=1)
    waiting.append({"event": "watch", "step": 2})
    journal.flush()
    rows = read_journal(tmp_path / "journal.jsonl")
    assert [row["event"] for row in rows] == ["step", "watch", "validation", "watch"]
    cut_journal(tmp_path / "journal.jsonl", step=1)
    assert len(read_journal(tmp_path / "journal.jsonl")) == 3


def test_a_full_disk_is_said_with_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match=r"No space left.*\n.*--resume"):
        Journal(tmp_path / "journal.jsonl").event("start", step=0)


def test_a_missing_journal_is_an_empty_history(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal.jsonl") == []
