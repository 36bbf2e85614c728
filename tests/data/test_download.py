"""Tests of fetching against a server of our own that cuts off, forgets ranges, and lies."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leadline.core.errors import CorruptFileError, DataError, FileError
from leadline.data.download import RemoteFile, digest_of, download, fetch_files, local_folders

CONTENT = bytes(range(256)) * 400  # 102,400 bytes


@dataclasses.dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    drop_after: int | None = None  # bytes of each answer before the connection is cut
    ranges: bool = True
    failures: int = 0  # how many requests are answered by 503 first
    asked: list[str | None] = dataclasses.field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    """A server of one file with the behaviour that stands in `server.behaviour`."""

    def do_GET(self) -> None:
        behaviour: Behaviour = self.server.behaviour  # type: ignore[attr-defined]  # set by serve
        asked = self.headers.get("Range")
        behaviour.asked.append(asked)
        if self.path != "/file.bin":
            self.send_error(404)
            return
        if behaviour.failures:
            behaviour.failures -= 1
            self.send_error(503)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and behaviour.ranges else 0
        if start >= len(behaviour.content):
            self.send_error(416)
            return
        body = behaviour.content[start:]
        self.send_response(206 if start else 200)
        if start:
            last = len(behaviour.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: behaviour.drop_after])

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[Behaviour, str]]:
    """A running server's behaviour and the address of its file."""
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    behaviour = httpd.behaviour = Behaviour()  # type: ignore[attr-defined]  # read by Handler
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield behaviour, f"http://127.0.0.1:{httpd.server_address[1]}/file.bin"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def remote(address: str, *, content: bytes = CONTENT) -> RemoteFile:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return RemoteFile(name="file.bin", address=address, digest=digest)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_arrives_whole(server: tuple[Behaviour, str], tmp_path: Path) -> None:
    path = download(remote(server[1]), tmp_path / "new", pause=0.0)
    assert path == tmp_path / "new" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert left_in(path.parent) == ["file.bin"]


def test_a_transfer_that_is_cut_off_is_resumed(
    server: tuple[Behaviour, str], tmp_path: Path
) -> None:
    behaviour, address = server
    behaviour.drop_after = 30_000
    assert download(remote(address), tmp_path, pause=0.0).read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_what_an_earlier_process_got_is_used(server: tuple[Behaviour, str], tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:100_000])
    assert download(remote(server[1]), tmp_path, pause=0.0).read_bytes() == CONTENT
    assert server[0].asked == ["bytes=100000-"]


def test_a_part_that_is_whole_already_is_taken(
    server: tuple[Behaviour, str], tmp_path: Path
) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert download(remote(server[1]), tmp_path, pause=0.0).read_bytes() == CONTENT
    assert left_in(tmp_path) == ["file.bin"]


def test_a_server_without_ranges_begins_anew(server: tuple[Behaviour, str], tmp_path: Path) -> None:
    server[0].ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 50_000)
    assert download(remote(server[1]), tmp_path, pause=0.0).read_bytes() == CONTENT


def test_an_earlier_part_of_another_version_is_thrown_away(
    server: tuple[Behaviour, str], tmp_path: Path
) -> None:
    for size in (50_000, len(CONTENT), 2 * len(CONTENT)):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "file.bin.part").write_bytes(b"x" * size)
        assert download(remote(server[1]), folder, pause=0.0).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server: tuple[Behaviour, str], tmp_path: Path) -> None:
    server[0].failures = 2
    assert download(remote(server[1]), tmp_path, pause=0.0).read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_given_up(
    server: tuple[Behaviour, str], tmp_path: Path
) -> None:
    server[0].failures = 100
    with pytest.raises(DataError, match=r"received the answer 503"):
        download(remote(server[1]), tmp_path, pause=0.0)
    assert len(server[0].asked) == 3


def test_an_address_that_is_wrong_is_not_asked_again(
    server: tuple[Behaviour, str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="received the answer 404"):
        download(remote(server[1] + "x"), tmp_path, pause=0.0)
    assert len(server[0].asked) == 1


def test_other_content_is_refused_and_removed(
    server: tuple[Behaviour, str], tmp_path: Path
) -> None:
    server[0].content = b"y" * len(CONTENT)
    with pytest.raises(CorruptFileError, match=r"the digest sha256:\w{64}\n.*something else") as e:
        download(remote(server[1]), tmp_path, pause=0.0)
    assert server[1] in e.value.received
    assert left_in(tmp_path) == []


def test_packed_files_are_checked_by_what_is_in_them(
    server: tuple[Behaviour, str], tmp_path: Path
) -> None:
    behaviour, address = server
    file = dataclasses.replace(remote(address), unpacked=True)
    for level in (1, 9):
        behaviour.content = gzip.compress(CONTENT, level)
        assert download(file, tmp_path / str(level), pause=0.0).read_bytes() == behaviour.content
    behaviour.content = gzip.compress(CONTENT)[:-9]
    with pytest.raises(CorruptFileError, match="of its unpacked content"):
        download(file, tmp_path / "cut", pause=0.0)


def test_digests_agree_with_hashlib(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(CONTENT))
    found = digest_of(tmp_path / "a", algorithm="md5", unpacked=True)
    assert found == f"md5:{hashlib.md5(CONTENT).hexdigest()}"


def test_files_can_come_from_the_disk_but_not_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    file = remote((tmp_path / "source").as_uri())
    assert download(file, tmp_path / "new", pause=0.0).read_bytes() == CONTENT
    with pytest.raises(DataError, match=r"begins with one of https, http, file\nreceived ftp:"):
        download(remote("ftp://127.0.0.1/file.bin"), tmp_path)


def test_an_own_copy_is_preferred_then_the_cache(
    server: tuple[Behaviour, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADLINE_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("LEADLINE_CACHE", str(tmp_path / "cache"))
    assert local_folders("toy") == (tmp_path / "own" / "toy", tmp_path / "cache" / "toy")
    file = remote(server[1])
    assert fetch_files("toy", [file])["file.bin"] == tmp_path / "cache" / "toy" / "file.bin"
    assert fetch_files("toy", [file])["file.bin"] == tmp_path / "cache" / "toy" / "file.bin"
    assert len(server[0].asked) == 1
    (tmp_path / "own" / "toy").mkdir(parents=True)
    (tmp_path / "own" / "toy" / "file.bin").write_bytes(b"mine")
    assert fetch_files("toy", [file])["file.bin"].read_bytes() == b"mine"


def test_without_variables_the_cache_is_below_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEADLINE_DATA", raising=False)
    monkeypatch.delenv("LEADLINE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_folders("toy") == (tmp_path / ".cache" / "leadline" / "data" / "toy",)


def test_offline_says_which_files_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADLINE_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("LEADLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("leadline.data.download.ATTEMPTS", 1)
    nowhere = "http://127.0.0.1:9/"  # the discard port: nobody listens
    files = [
        RemoteFile(name="a.gz", address=nowhere + "a.gz", digest="sha256:aa", unpacked=True),
        RemoteFile(name="b.tar", address=nowhere + "b.tar", digest="md5:bb"),
    ]
    with pytest.raises(DataError) as caught:
        fetch_files("toy", files)
    message = str(caught.value)
    assert f"in {tmp_path}/own/toy and {tmp_path}/cache/toy" in message
    assert "2 of them missing, and http://127.0.0.1:9/a.gz: [Errno 111]" in message
    assert f"{nowhere}a.gz\n    as {tmp_path}/own/toy/a.gz\n    sha256:aa (of the unp" in message
    assert f"{nowhere}b.tar\n    as {tmp_path}/own/toy/b.tar\n    md5:bb" in message


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LEADLINE_DATA", raising=False)
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root
    with pytest.raises(FileError, match=r"a folder that can be written at .*cache/toy\n.*denied"):
        fetch_files("toy", [remote("http://127.0.0.1:9/file.bin")])


def test_two_who_want_the_same_file_fetch_it_once(
    server: tuple[Behaviour, str], tmp_path: Path
) -> None:
    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(download(remote(server[1]), tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [tmp_path / "file.bin"] * 4
    assert len(server[0].asked) == 1
