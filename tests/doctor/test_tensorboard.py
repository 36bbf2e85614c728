"""Tests of the event files; what is in them is read back in test_watch."""

from __future__ import annotations

import importlib
import math
import types
from pathlib import Path
from typing import Any

import pytest

from leadline.core.errors import ConfigError
from leadline.core.profile import Profile
from leadline.doctor.tensorboard import EventFiles


class Recorder:
    """Stands for torch's SummaryWriter."""

    def __init__(self, log_dir: str) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.closed = False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_each_column_is_a_group_and_what_a_layer_lacks_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = types.ModuleType("tensorboard")
    module.__dict__["SummaryWriter"] = Recorder
    monkeypatch.setattr(importlib, "import_module", lambda name: module)
    events = EventFiles(tmp_path)
    monkeypatch.undo()
    values = {"std": (1.0, math.nan), "lr": (math.nan, 0.1)}
    profile = Profile(name="n", unit="1", reading="r", layers=("a", "b"), values=values)
    events.write(3, profile, loss=2.0)
    events.close()
    recorder: Any = events._writer
    assert recorder.scalars == [("loss", 2.0, 3), ("std/a", 1.0, 3), ("lr/b", 0.1, 3)]
    assert recorder.closed


def test_a_missing_extra_is_said_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'tensorboard'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'leadline\[tensorboard\]'"):
        EventFiles(tmp_path)
    assert list(tmp_path.iterdir()) == []
