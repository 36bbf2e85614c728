"""Tests of files written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from leadline.core.errors import FileError
from leadline.core.files import make_folder, sync_folder, write_atomic


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_atomic(tmp_path / "text", "déjà vu")
    write_atomic(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "déjà vu"
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failure_at_any_point_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, {"write": "open", "replace": "replace"}[call], fail)
    with pytest.raises(FileError) as caught:
        write_atomic(path, "new!")
    monkeypatch.undo()
    assert f"expected to write 4 bytes to {path}" in str(caught.value)
    assert "No space left on device" in caught.value.received
    assert "the previous file is intact" in caught.value.remedy
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_content_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        order.append("flush")
        fsync(descriptor)

    def watched_replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_atomic(tmp_path / "file", "content")
    assert order == ["flush", "rename", "flush"]


def test_a_folder_is_made_with_its_parents_and_may_exist(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    assert make_folder(folder).is_dir()
    sync_folder(folder)


def test_a_folder_where_a_file_stands_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match=r"expected a folder that can be written at .*taken"):
        make_folder(tmp_path / "taken")


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so that the answer of the system is given in its place.
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    with pytest.raises(FileError, match="Permission denied") as caught:
        make_folder(tmp_path)
    assert caught.value.remedy == "choose another folder, or make this one writable"
