"""Files written whole or not at all.

A file that is written in place is half written when the power fails. Here every file is written
to a temporary name, flushed to the disk, renamed over the old one, and the rename itself is
flushed: a reader sees the old file or the new one, never a mixture.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from leadline.core.errors import FileError


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace the file at `path` by `content`, durably: the old file or the new, never half."""
    payload = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise FileError(
            expected=f"to write {len(payload):,} bytes to {path}",
            received=f"{error.strerror or error} ({type(error).__name__})",
            remedy="free some space or choose a folder that can be written; "
            "the previous file is intact",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries, so that a rename in it survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> Path:
    """Create `folder` with its parents where missing, or say why that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied", str(folder))
    except OSError as error:
        raise FileError(
            expected=f"a folder that can be written at {folder}",
            received=f"{error.strerror or error}",
            remedy="choose another folder, or make this one writable",
        ) from error
    return folder
