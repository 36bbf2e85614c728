"""Reading a file of torch.save in a process of its own, with limits on memory and time.

`import_checkpoint` runs no code from a file, but a file can still ask for all memory there is, or
crash what reads it. So a stranger's file is read by a child that may take three times the file's
size in memory and two minutes, and that writes what it found as safetensors.

    python -m leadline.models.unpickle FILE OUT
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from leadline.core import errors
from leadline.core.errors import CorruptFileError, FileError, LeadlineError
from leadline.models.weights import import_checkpoint, read_safetensors

TIMES = 3  # bytes of memory for each byte of the file
SPARE = 1 << 30  # bytes of memory beside that
SECONDS = 120


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of torch.save, read in a limited process.

    Raises what `import_checkpoint` raises, and CorruptFileError where the child crashes or asks
    for more than it may have.
    """
    if not path.is_file():
        raise FileError(
            expected=f"a file with weights at {path}",
            received="a folder" if path.is_dir() else "no such file",
            remedy="check the path",
        )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "weights.safetensors"
        command = [sys.executable, "-m", "leadline.models.unpickle", str(path), str(out)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise _refused(path, f"a file that takes more than {SECONDS} seconds") from error
        if done.returncode == 0:
            return read_safetensors(out).tensors
        raise _told(path, done)


def _told(path: Path, done: subprocess.CompletedProcess[str]) -> LeadlineError:
    """The error that the child told, or one that says how it ended."""
    lines = done.stdout.splitlines()
    try:
        plain = json.loads(lines[-1])
        kind = getattr(errors, plain.pop("error"))
    except (IndexError, ValueError, KeyError, AttributeError, TypeError):
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return _refused(path, f"a file that ends the process which reads it: {last}")
    told: LeadlineError = kind(**plain)
    return told


def _refused(path: Path, received: str) -> CorruptFileError:
    return CorruptFileError(
        expected=f"a file of torch.save at {path}, read in {SECONDS} seconds and in "
        f"{TIMES} times its size of memory",
        received=received,
        remedy="do not trust this file; take it anew from where it was published",
    )


def _limit(path: Path) -> None:
    """Bound this process's memory, written bytes and seconds, for reading `path`."""
    size = path.stat().st_size
    pages = Path("/proc/self/statm")
    now = int(pages.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0
    most = now + TIMES * size + SPARE
    for kind, bound in (
        (resource.RLIMIT_AS, most if now else resource.RLIM_INFINITY),
        (resource.RLIMIT_FSIZE, 2 * size + SPARE),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        lowest = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (lowest, hard))


def main(arguments: list[str]) -> int:
    """Read the first file, write the second; the error as one JSON object where that fails."""
    path, out = Path(arguments[0]), Path(arguments[1])
    try:
        _limit(path)
        state = import_checkpoint(path)
        save_file({key: value.clone().contiguous() for key, value in state.items()}, out)
    except LeadlineError as error:
        print(json.dumps(error.to_plain()))
        return 1
    except MemoryError:
        print(json.dumps(_refused(path, "a file that asks for more memory").to_plain()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
