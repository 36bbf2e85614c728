"""Published files fetched once: checked by digest, resumed when cut off, never half there.

A file is looked for in `LEADLINE_DATA/<name>/`, then in the cache folder (`LEADLINE_CACHE`, or
`~/.cache/leadline/data`), and only then fetched from its address. What has arrived is kept in
`<file>.part`; after a cut the rest is asked for with an HTTP Range, and a server that sends the
whole file again is taken at its word. The digest decides: a file whose content is not the
published one is removed, and only a right one gets its final name.

The surprising choice: for gzip files the digest is that of the *unpacked* content, since mirrors
compress anew, and the numbers inside are what matters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import http.client
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from leadline.core.errors import CorruptFileError, DataError, FileError
from leadline.core.files import make_folder, sync_folder

if sys.platform != "win32":
    import fcntl

SCHEMES = ("https", "http", "file")
BLOCK = 1 << 18  # bytes read at a time
TIMEOUT = 30.0  # seconds without a byte before a connection counts as cut
ATTEMPTS = 3  # in a row without a single new byte, before giving up
NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file: its name, its address, and the digest of its content.

    `digest` is `sha256:...` or `md5:...`; with `unpacked` it is that of the gunzipped content.
    """

    name: str
    address: str
    digest: str
    unpacked: bool = False


def local_folders(dataset: str) -> tuple[Path, ...]:
    """Where files of `dataset` are looked for, the preferred place first; the last is the cache."""
    cache = os.environ.get("LEADLINE_CACHE")
    root = Path(cache).expanduser() if cache else Path.home() / ".cache" / "leadline" / "data"
    own = os.environ.get("LEADLINE_DATA")
    preferred = (Path(own).expanduser() / dataset,) if own else ()
    return (*preferred, root / dataset)


def fetch_files(dataset: str, files: Sequence[RemoteFile]) -> dict[str, Path]:
    """The path of every file of `dataset`, fetched where there is no local copy yet.

    Raises `DataError` that says which files to put where when they cannot be fetched.
    """
    folders = local_folders(dataset)
    found = {
        file.name: next(
            (folder / file.name for folder in folders if (folder / file.name).is_file()), None
        )
        for file in files
    }
    for file in files:
        if found[file.name] is None:
            try:
                found[file.name] = download(file, folders[-1])
            except DataError as error:
                missing = [entry for entry in files if found[entry.name] is None]
                raise _offline(dataset, missing, folders, error) from error
    return {name: path for name, path in found.items() if path is not None}


def download(file: RemoteFile, folder: Path, *, pause: float = 0.5) -> Path:
    """Fetch `file` into `folder` and return its path; `pause` is the first wait in seconds.

    Raises `DataError` when the address cannot be reached, `CorruptFileError` when what it sends
    is not the published content, `FileError` when the folder cannot be written.
    """
    scheme = urllib.parse.urlsplit(file.address).scheme
    if scheme not in SCHEMES:
        raise DataError(
            expected=f"an address that begins with one of {', '.join(SCHEMES)}",
            received=file.address,
            remedy="use another address for this file",
        )
    target = make_folder(folder) / file.name
    part = target.with_name(file.name + ".part")
    with _one_at_a_time(target):
        if target.is_file():  # another process has just fetched it
            return target
        resumed = part.exists() and part.stat().st_size > 0
        try:
            _transfer(file, part, pause=pause)
            if not _is_published(file, part) and resumed:
                part.unlink()  # the older bytes may be of another version: once more, from scratch
                _transfer(file, part, pause=pause)
            _check(file, part)
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            part.replace(target)
            sync_folder(folder)
        except OSError as error:
            raise FileError(
                expected=f"to write {target}",
                received=f"{error.strerror or error} ({type(error).__name__})",
                remedy="free some space, or set LEADLINE_CACHE to a folder that can be written",
            ) from error
    return target


def digest_of(path: Path, *, algorithm: str, unpacked: bool = False) -> str:
    """The digest of a file as `algorithm:hex`, of its gunzipped content with `unpacked`."""
    with path.open("rb") as raw:
        stream = gzip.GzipFile(fileobj=raw) if unpacked else raw
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        while block := stream.read(BLOCK):
            hasher.update(block)
    return f"{algorithm}:{hasher.hexdigest()}"


def _is_published(file: RemoteFile, path: Path) -> bool:
    algorithm = file.digest.partition(":")[0]
    try:
        return digest_of(path, algorithm=algorithm, unpacked=file.unpacked) == file.digest
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False


def _check(file: RemoteFile, path: Path) -> None:
    if _is_published(file, path):
        return
    size = path.stat().st_size
    path.unlink()
    raise CorruptFileError(
        expected=f"{file.name} with the digest {file.digest}"
        f"{' of its unpacked content' if file.unpacked else ''}",
        received=f"{size:,} bytes from {file.address} that are something else",
        remedy="try again later, or get the file elsewhere; what came has been removed",
    )


def _transfer(file: RemoteFile, part: Path, *, pause: float) -> None:
    """Bring `part` to its full length; every new byte earns new attempts."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _request(file, part, offset=before)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing after our bytes: they are whole, or wrong
                if _is_published(file, part):
                    return
                part.unlink()
            elif error.code < 500 and error.code not in (408, 429):
                raise _unreachable(file, f"the answer {error.code} {error.reason}") from error
            reason = f"the answer {error.code} {error.reason}"
        except NETWORK_ERRORS as error:
            reason = str(getattr(error, "reason", None) or str(error) or type(error).__name__)
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= ATTEMPTS:
            raise _unreachable(file, reason)
        time.sleep(pause * 2**failures)


def _request(file: RemoteFile, part: Path, *, offset: int) -> None:
    headers = {"User-Agent": "leadline", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(file.address, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        status = getattr(response, "status", None)
        length = response.headers.get("Content-Length")
        start = offset if status == 206 else 0  # 200: the whole file again
        if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise http.client.HTTPException("a range that was not asked for")
        whole = start + int(length) if length is not None else None
        with part.open("r+b" if start else "wb") as sink, _bar(file.name, start, whole) as advance:
            sink.seek(start)
            received = start
            while block := response.read(BLOCK):
                sink.write(block)
                received += len(block)
                advance(len(block))
        if whole is not None and received < whole:
            raise http.client.HTTPException(f"cut off after {received:,} of {whole:,} bytes")


@contextlib.contextmanager
def _bar(name: str, start: int, whole: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=whole, completed=start)
        yield lambda count: progress.advance(task, count)


@contextlib.contextmanager
def _one_at_a_time(target: Path) -> Iterator[None]:
    """Hold a lock file beside `target`, so that two processes never write one part file."""
    if sys.platform == "win32":
        yield
        return
    with target.with_name(f".{target.name}.lock").open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _unreachable(file: RemoteFile, reason: str) -> DataError:
    return DataError(
        expected=f"to fetch {file.name} from {file.address}",
        received=reason,
        remedy="check the connection and try again; what has arrived is kept",
    )


def _offline(
    dataset: str, missing: Sequence[RemoteFile], folders: Sequence[Path], error: DataError
) -> DataError:
    looked = " and ".join(map(str, folders))
    listing = "".join(
        f"\n  - {file.address}\n    as {folders[0] / file.name}\n    {file.digest}"
        f"{' (of the unpacked content)' if file.unpacked else ''}"
        for file in missing
    )
    return DataError(
        expected=f"the files of {dataset} in {looked}, or a connection to fetch them",
        received=f"{len(missing)} of them missing, and {missing[0].address}: {error.received}",
        remedy=f"where there is a connection, get what follows and put it where it says:{listing}",
    )
