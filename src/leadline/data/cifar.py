"""CIFAR-10 in its binary version: one byte of label, then 3072 bytes of picture, per record.

A record's picture is 1024 red, 1024 green, 1024 blue values, each 32 rows of 32. The archive
`cifar-10-binary.tar.gz` holds five training files and one test file of 10,000 records each
(A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009). The binary version
is read because the Python version is pickled, and reading a pickle can execute code. The archive
is read in place: nothing is extracted to the disk, so no path in it can lead anywhere.
"""

from __future__ import annotations

import dataclasses
import tarfile
import zlib
from pathlib import Path

import torch
from torch import Tensor

from leadline.core.errors import CorruptFileError, FileError

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
RECORD = 1 + 3 * 32 * 32  # bytes
RECORDS = 10_000  # in each file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images `[N, 3, 32, 32]` uint8 with their labels `[N]` int64."""

    images: Tensor
    targets: Tensor


def read_cifar10(path: Path, *, records: int = RECORDS) -> dict[str, Pictures]:
    """The `train` and `test` pictures in the archive at `path`, `records` in each of its files.

    Raises `CorruptFileError` when a file is missing, has another size, or holds a wrong label.
    """
    wanted = {*TRAIN_FILES, TEST_FILE}
    parts: dict[str, Pictures] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name not in wanted or not member.isfile():
                    continue
                if member.size != records * RECORD:
                    raise _corrupt(
                        path, f"{records * RECORD:,} bytes of {name}", f"{member.size:,}"
                    )
                stream = archive.extractfile(member)
                assert stream is not None  # a regular file always has one
                parts[name] = _decode(stream.read(), path, name)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise _corrupt(path, "a whole .tar.gz archive", str(error)) from error
    except OSError as error:
        if error.errno is None:  # gzip.BadGzipFile: the content, not the disk
            raise _corrupt(path, "a whole .tar.gz archive", str(error)) from error
        raise FileError(
            expected=f"an archive at {path}",
            received=f"{error.strerror or error}",
            remedy="check that the file is there and can be read",
        ) from error
    missing = sorted(wanted - set(parts))
    if missing:
        raise _corrupt(path, "five training files and a test file", f"no {', '.join(missing)}")
    train = [parts[name] for name in TRAIN_FILES]
    return {
        "train": Pictures(
            images=torch.cat([part.images for part in train]),
            targets=torch.cat([part.targets for part in train]),
        ),
        "test": parts[TEST_FILE],
    }


def _decode(content: bytes, path: Path, name: str) -> Pictures:
    if len(content) % RECORD:
        raise _corrupt(path, f"whole records of {RECORD} bytes in {name}", f"{len(content):,}")
    table = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, RECORD)
    targets = table[:, 0].to(torch.int64)
    if bool((targets > 9).any()):
        raise _corrupt(path, f"labels 0 to 9 in {name}", f"label {int(targets.max())}")
    return Pictures(images=table[:, 1:].reshape(-1, 3, 32, 32).clone(), targets=targets)


def _corrupt(path: Path, expected: str, received: str) -> CorruptFileError:
    return CorruptFileError(
        expected=f"{expected} in {path}",
        received=received,
        remedy="delete the file and fetch cifar-10-binary.tar.gz again",
    )
