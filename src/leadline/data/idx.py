"""The idx format of MNIST: a four-byte magic number, the sizes, then the numbers themselves.

    00 00 TT DD   TT the type of a number, DD how many dimensions
    S1 ... SD     the sizes, 32 bits each, most significant byte first
    data          the numbers, last dimension fastest

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section "file formats". Files may be
gzip-compressed. Nothing in the header is believed before the data behind it have been counted.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadline.core.errors import CorruptFileError, FileError

NUMBER_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
LARGEST = 1 << 33  # bytes: 8 GiB, far above every published idx file; more is a lying header


def read_idx(path: Path) -> NDArray[np.generic]:
    """The array in an idx file, compressed or not, in the machine's byte order.

    Raises `CorruptFileError` for a wrong magic number, sizes that lie, or a truncated file.
    """
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = gzip.GzipFile(fileobj=raw) if compressed else raw
            return _read(stream, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _corrupt(path, "a whole gzip file", str(error)) from error
    except OSError as error:
        raise FileError(
            expected=f"an idx file at {path}",
            received=f"{error.strerror or error}",
            remedy="check that the file is there and can be read",
        ) from error


def _read(stream: io.BufferedIOBase, path: Path) -> NDArray[np.generic]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in NUMBER_TYPES or not head[3]:
        raise _corrupt(path, "an idx magic number (00 00, a type, a count)", f"{head.hex(' ')!r}")
    count = head[3]
    packed = stream.read(4 * count)
    if len(packed) < 4 * count:
        raise _corrupt(path, f"{count} sizes in the header", f"{len(packed)} bytes of them")
    sizes = struct.unpack(f">{count}I", packed)
    kind = np.dtype(NUMBER_TYPES[head[2]])
    expected = math.prod(sizes) * kind.itemsize
    shape = " x ".join(map(str, sizes))
    if expected > LARGEST:
        raise _corrupt(path, f"at most {LARGEST:,} bytes", f"a header that claims {shape}")
    content = stream.read(expected)
    if len(content) < expected:
        raise _corrupt(path, f"{expected:,} bytes for {shape} numbers", f"{len(content):,} bytes")
    if stream.read(1):
        raise _corrupt(path, f"{expected:,} bytes for {shape} numbers", "more than that")
    array = np.frombuffer(content, dtype=kind).reshape(sizes)
    return np.array(array, dtype=kind.newbyteorder("="))


def _corrupt(path: Path, expected: str, received: str) -> CorruptFileError:
    return CorruptFileError(
        expected=f"{expected} in {path}",
        received=received,
        remedy="delete the file and fetch it again; it is damaged or not an idx file",
    )
