"""Tests of the idx reader: round trips against numpy, and every way a file can lie."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from leadline.core.errors import CorruptFileError, FileError
from leadline.data.idx import read_idx


def packed(array: np.ndarray, code: int) -> bytes:
    """The idx bytes of an array, written from the format's description."""
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")],
)
def test_every_type_of_number_is_read_back(tmp_path: Path, code: int, kind: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    (tmp_path / "plain").write_bytes(packed(array, code))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(packed(array, code)))
    for name in ("plain", "packed.gz"):
        found = read_idx(tmp_path / name)
        assert found.dtype == np.dtype(kind)
        np.testing.assert_array_equal(found, array)


GOOD = packed(np.arange(12, dtype="u1").reshape(3, 4), 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an idx magic number"),
        (b"PK\x03\x04" + GOOD, "an idx magic number"),
        (GOOD[:7], "2 sizes in the header"),
        (GOOD[:-1], r"12 bytes for 3 x 4 numbers[^\n]*\nreceived 11 bytes"),
        (GOOD + b"x", r"12 bytes for 3 x 4 numbers[^\n]*\nreceived more than that"),
        (struct.pack(">HBBII", 0, 8, 2, 1 << 31, 1 << 31), "a header that claims 2147483648 x"),
        (gzip.compress(GOOD, mtime=0)[:-6], "a whole gzip file"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "a whole gzip file"),
        (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 20, "a whole gzip file"),
    ],
    ids=[
        "empty",
        "zip",
        "header cut",
        "too short",
        "too long",
        "huge",
        "gzip cut",
        "gzip checksum",
        "gzip garbage",
    ],
)
def test_a_file_that_is_not_what_it_claims_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read_idx(tmp_path / "none")
