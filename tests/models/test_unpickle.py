"""Tests of reading strangers' files in a limited process."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from leadline.core.errors import CorruptFileError, FileError, UnsafeFileError
from leadline.models import unpickle
from leadline.models.unpickle import read_checkpoint


def test_a_state_dict_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(3, 2), "b": torch.tensor(4)}
    shared = torch.randn(5)
    torch.save({"state_dict": {**state, "c": shared, "d": shared}}, tmp_path / "weights.pth")
    found = read_checkpoint(tmp_path / "weights.pth")
    assert found.keys() == {"a.weight", "b", "c", "d"}
    assert torch.equal(found["a.weight"], state["a.weight"])
    assert torch.equal(found["c"], found["d"])


class Opens:
    """What runs code when a pickle of it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("read",))


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Opens()}, tmp_path / "evil.pt")
    with pytest.raises(UnsafeFileError, match="which could run code when read"):
        read_checkpoint(tmp_path / "evil.pt")


def test_a_broken_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(CorruptFileError):
        read_checkpoint(tmp_path / "broken.pt")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="received no such file"):
        read_checkpoint(tmp_path / "none.pt")


def test_a_small_file_that_asks_for_all_the_memory_is_refused(tmp_path: Path) -> None:
    """A storage of 64 GiB in a file of a few kilobytes: zeros compress well."""
    path = tmp_path / "bomb.pt"
    torch.save({"w": torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (data,) = (name for name in entries if name.endswith("data.pkl"))
    entries[data] = entries[data].replace(b"K\x04", b"\x8a\x05\x00\x00\x00\x00\x04")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(CorruptFileError):
        read_checkpoint(path)


def test_a_file_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"w": torch.zeros(4)}, tmp_path / "slow.pt")
    monkeypatch.setattr(unpickle, "SECONDS", 0.01)
    with pytest.raises(CorruptFileError, match=r"takes more than 0\.01 seconds"):
        read_checkpoint(tmp_path / "slow.pt")
