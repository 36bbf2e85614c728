"""Tests of the choice of a device and the description of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import torch

from leadline.core import devices
from leadline.core.config import to_json
from leadline.core.devices import (
    available_cores,
    available_memory,
    choose_device,
    describe_machine,
)
from leadline.core.errors import ConfigError


def pretend(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    """A machine with so many GPUs, and with a Metal device or without."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(2, True, "cuda:0"), (0, True, "mps"), (0, False, "cpu")]
)
def test_the_best_device_is_cuda_then_mps_then_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, best: str
) -> None:
    pretend(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device() == torch.device(best)


def test_a_device_asked_for_by_name_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=2, mps=True)
    for name in ("cpu", "mps", "cuda:1"):
        assert choose_device(name) == torch.device(name)
    assert choose_device("cuda") == torch.device("cuda:0")


@pytest.mark.parametrize(
    ("name", "cuda", "message"),
    [
        ("cuda", 0, "expected the device 'cuda' on this machine\nreceived "),
        ("cuda:3", 1, "received 1 GPU is visible, from cuda:0"),
        ("cuda:3", 2, "received 2 GPUs are visible, from cuda:0"),
        ("mps", 0, "received this torch build or this system has no Metal device"),
        (
            "gpu",
            0,
            "device must be one of auto, cpu, cuda, mps or cuda:0, cuda:1 …, received 'gpu'",
        ),
        ("cuad", 0, "received 'cuad' (did you mean 'cuda'?)"),
        ("cuda:x", 1, "received 'cuda:x'"),
    ],
)
def test_a_device_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, cuda: int, message: str
) -> None:
    pretend(monkeypatch, cuda=cuda)
    with pytest.raises(ConfigError) as caught:
        choose_device(name)
    assert message in str(caught.value)


def test_the_machine_is_described_as_psutil_sees_it() -> None:
    machine = describe_machine(torch.device("cpu"))
    assert machine.device == "cpu"
    assert machine.torch == torch.__version__
    assert machine.memory <= psutil.virtual_memory().total
    assert 1 <= machine.cores <= len(psutil.Process().cpu_affinity() or [0])
    assert machine.cpu
    assert '"cores"' in to_json(machine)


def test_the_free_memory_is_what_psutil_sees() -> None:
    seen = psutil.virtual_memory().available
    assert 0.5 * seen < available_memory() < 1.5 * seen


def test_a_control_group_limits_cores_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_cores() == 8
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert available_cores() == 2
    assert available_memory() == 600_000
    assert describe_machine(torch.device("cpu")).memory == 1_000_000
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_cores() == 8
    assert available_memory() > 1_000_000
