"""Tests of the CIFAR-10 reader on small archives in the published layout."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from leadline.core.errors import CorruptFileError, FileError
from leadline.data.cifar import TEST_FILE, TRAIN_FILES, read_cifar10

RECORDS = 4


def write_archive(
    path: Path, files: dict[str, bytes], *, folder: str = "cifar-10-batches-bin/"
) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def records() -> dict[str, np.ndarray]:
    luck = np.random.default_rng(0)
    tables = {}
    for name in (*TRAIN_FILES, TEST_FILE):
        table = luck.integers(0, 256, (RECORDS, 3073), dtype=np.uint8)
        table[:, 0] %= 10
        tables[name] = table
    return tables


def test_labels_and_pixels_are_where_the_format_says(tmp_path: Path) -> None:
    tables = records()
    path = tmp_path / "cifar.tar.gz"
    write_archive(path, {name: table.tobytes() for name, table in tables.items()})
    parts = read_cifar10(path, records=RECORDS)
    assert parts["train"].images.shape == (20, 3, 32, 32)
    assert parts["test"].targets.tolist() == tables[TEST_FILE][:, 0].tolist()
    second = tables["data_batch_2.bin"]
    row, column = 5, 7
    for channel in range(3):
        expected = second[1, 1 + channel * 1024 + row * 32 + column]
        assert parts["train"].images[RECORDS + 1, channel, row, column] == expected


def test_nothing_is_extracted_wherever_a_path_leads(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    files = {name: table.tobytes() for name, table in records().items()}
    write_archive(inner / "a.tar.gz", {**files, "evil.txt": b"x"}, folder="../")
    read_cifar10(inner / "a.tar.gz", records=RECORDS)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["inner", "a.tar.gz"]


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    files = {name: table.tobytes() for name, table in records().items()}
    path = tmp_path / "cifar.tar.gz"
    write_archive(path, {**files, TEST_FILE: files[TEST_FILE][:-1]})
    with pytest.raises(CorruptFileError, match=r"12,292 bytes of test_batch\.bin"):
        read_cifar10(path, records=RECORDS)
    write_archive(path, {**files, TEST_FILE: b"\x0a" + files[TEST_FILE][1:]})
    with pytest.raises(CorruptFileError, match=r"labels 0 to 9 in test_batch\.bin.*\n.*label 10"):
        read_cifar10(path, records=RECORDS)
    write_archive(path, {name: files[name] for name in TRAIN_FILES})
    with pytest.raises(CorruptFileError, match=r"no test_batch\.bin"):
        read_cifar10(path, records=RECORDS)
    write_archive(path, files)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(CorruptFileError, match=r"a whole \.tar\.gz archive"):
        read_cifar10(path, records=RECORDS)
    path.write_bytes(b"not an archive")
    with pytest.raises(CorruptFileError, match=r"a whole \.tar\.gz archive"):
        read_cifar10(path, records=RECORDS)


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read_cifar10(tmp_path / "none.tar.gz")
