"""Checkpoints that are cut off, flipped, zeroed, or never written for want of space."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from leadline.core.errors import CorruptFileError, FileError, RunError
from leadline.training.checkpoint import (
    KEPT,
    checkpoint_files,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)

STATE = {
    "model": {
        "weight": torch.arange(6.0).reshape(2, 3),
        "half": torch.ones(3, dtype=torch.bfloat16),
    },
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
    "schedule": None,
    "counters": {"step": 3, "seconds": 0.1},
}


def assert_equal_states(one: object, other: object) -> None:
    if isinstance(one, dict):
        assert isinstance(other, dict) and one.keys() == other.keys()
        for key in one:
            assert_equal_states(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other) and one.dtype == other.dtype
    else:
        assert one == other


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = bytearray()
    elif how == "zeroed":
        content = bytearray(len(content))
    elif how == "flipped in the weights":
        content[-1] ^= 1
    elif how == "flipped in the header":
        place = content.index(b"lr")
        content[place] ^= 1
    elif how == "a header that lies":
        content[:8] = (2**40).to_bytes(8, "little")
    path.write_bytes(bytes(content))


DAMAGES = (
    "truncated",
    "empty",
    "zeroed",
    "flipped in the weights",
    "flipped in the header",
    "a header that lies",
)


def test_a_state_is_read_back_as_it_was(tmp_path: Path) -> None:
    assert_equal_states(STATE, load_checkpoint(save_checkpoint(tmp_path, STATE, step=3)))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    how: str, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, STATE, step=3)
    newest = save_checkpoint(tmp_path, {**STATE, "schedule": {"last": 9}}, step=9)
    damage(newest, how)
    with pytest.raises(CorruptFileError, match=newest.name):
        load_checkpoint(newest)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.path.name == "step-00000003.safetensors"
    assert found.damaged == ("step-00000009.safetensors",)
    assert_equal_states(STATE, found.state)


def test_every_single_flipped_bit_of_the_state_is_noticed(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, STATE, step=3)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 0x04
        path.write_bytes(bytes(flipped))
        try:
            state = load_checkpoint(path)
        except CorruptFileError:
            continue
        assert_equal_states(STATE, state)  # a flip in the header's padding changes nothing


def test_only_damaged_checkpoints_are_an_error_that_names_them(tmp_path: Path) -> None:
    damage(save_checkpoint(tmp_path, STATE, step=3), "zeroed")
    with pytest.raises(RunError, match=r"only damaged ones: step-00000003"):
        newest_checkpoint(tmp_path)


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None


def test_old_checkpoints_are_dropped(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(tmp_path, STATE, step=step)
    assert [p.name for p in checkpoint_files(tmp_path)] == [
        f"step-{step:08d}.safetensors" for step in (5, 4)
    ][:KEPT]


CALLS = ("open", "write", "fsync", "replace")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("failing", CALLS)
def test_a_write_that_fails_leaves_the_checkpoint_before_and_no_rubbish(
    failing: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, STATE, step=3)

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    if failing in ("open", "write"):
        opened = Path.open

        def open_broken(self: Path, mode: str = "r", *rest: object) -> object:
            if failing == "open":
                fail()
            stream = opened(self, mode, *rest)
            return _Broken(stream, fail)

        monkeypatch.setattr(Path, "open", open_broken)
    elif failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(FileError, match=os.strerror(code)):
        save_checkpoint(tmp_path, STATE, step=9)
    monkeypatch.undo()
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert_equal_states(STATE, found.state)
    assert not list(tmp_path.glob(".*tmp"))


class _Broken:
    """A stream whose write fails."""

    def __init__(self, stream: object, fail: object) -> None:
        self.stream, self.write = stream, fail

    def __enter__(self) -> _Broken:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()  # type: ignore[attr-defined]


def test_tensors_that_share_memory_are_saved_apart(tmp_path: Path) -> None:
    weight = torch.arange(4.0)
    state = {"a": weight, "b": weight, "c": weight[1:]}
    assert_equal_states(state, load_checkpoint(save_checkpoint(tmp_path, state, step=1)))
