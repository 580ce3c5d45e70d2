"""Downloads over a network that drops, from servers that send the wrong thing, onto a disk that is full."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stackctl.engines.download import Downloader, File
from stackctl.errors import JobFailed, MissingHere, StackError
from tests.integration.ship.conftest import served

CONTENT = bytes(range(256)) * 8192
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT, `most` bytes a connection; remembers the ranges and passwords that were asked with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.most = len(CONTENT)
        self.ranges: list[str] = []
        self.logins: list[str] = []

    def file(self, path: str = "whole", digest: str = DIGEST) -> File:
        return File("a.whl", f"http://127.0.0.1:{self.server_port}/{path}", len(CONTENT), (digest,), "lock.txt:7")


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range", ""))
        self.server.logins.append(self.headers.get("Authorization", ""))
        if self.path == "/absent":
            self.send_error(404)
            return
        if self.path == "/overloaded":
            self.send_error(503)
            return
        begun = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in self.headers else 0
        self.send_response(206 if begun else 200)
        self.send_header("Content-Length", str(len(CONTENT) - begun))
        self.end_headers()
        self.wfile.write(CONTENT[begun : begun + self.server.most])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with served(Server()) as server:
        yield server


def fails(server: Server, folder: Path, file: File) -> StackError:
    with pytest.raises(StackError) as caught:
        Downloader().fetch_all([file], folder, lambda _: None)
    assert not (folder / file.name).exists()
    return caught.value


def test_a_dropped_connection_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.most = len(CONTENT) // 3 + 1
    Downloader().fetch_all([server.file()], tmp_path, lambda _: None)
    assert (tmp_path / "a.whl").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a.whl"]
    assert server.ranges == ["", f"bytes={server.most}-", f"bytes={2 * server.most}-"]


def test_the_next_run_goes_on_where_an_interrupted_one_stopped(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".a.whl.part").write_bytes(CONTENT[:1000])
    Downloader().fetch_all([server.file()], tmp_path, lambda _: None)
    assert (tmp_path / "a.whl").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_what_goes_on_from_another_files_beginning_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".a.whl.part").write_bytes(b"the beginning of a page that says no" * 100)
    Downloader().fetch(server.file(), tmp_path)
    assert (tmp_path / "a.whl").read_bytes() == CONTENT
    assert server.ranges == ["bytes=3600-", ""]


def test_another_hash_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    error = fails(server, tmp_path, server.file(digest="0" * 64))
    assert str(error).startswith(f"lock.txt:7: a.whl has another hash than the lock: {DIGEST}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_gone_is_told_with_who_wants_it(server: Server, tmp_path: Path) -> None:
    error = fails(server, tmp_path, server.file("absent"))
    assert isinstance(error, JobFailed)
    assert str(error).startswith("lock.txt:7: the server answers 404 Not Found to http://127.0.0.1:")


def test_a_server_that_is_gone_is_told_after_some_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stackctl.engines.download.TRIES", 2)
    file = File("a.whl", "http://127.0.0.1:9/a.whl", None, (DIGEST,), "lock.txt:7")
    with pytest.raises(JobFailed, match=r"a\.whl cannot be fetched from .*refused") as caught:
        Downloader().fetch_all([file], tmp_path, lambda _: None)
    assert "goes on where it stopped" in caught.value.hint


def test_a_password_goes_to_its_host_and_into_no_message(server: Server, tmp_path: Path) -> None:
    Downloader(logins={"127.0.0.1": "user:secret"}).fetch_all([server.file()], tmp_path, lambda _: None)
    assert server.logins == ["Basic dXNlcjpzZWNyZXQ="]
    file = File("b.whl", f"http://user:secret@127.0.0.1:{server.server_port}/absent", None, (DIGEST,), "lock.txt:7")
    assert "secret" not in str(fails(server, tmp_path, file))
    assert server.logins[1] == "Basic dXNlcjpzZWNyZXQ="


@pytest.mark.needs("root", "linux")
def test_a_full_disk_is_told_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        error = fails(server, disk, server.file())
        assert isinstance(error, MissingHere)
        assert str(error).startswith(f"{disk}: the disk is full: no room for a.whl")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_once_a_file_cannot_be_had_the_others_are_not_tried_again(server: Server, tmp_path: Path) -> None:
    begun = time.monotonic()
    files = [server.file("overloaded"), server.file("absent")]
    with pytest.raises(JobFailed, match="404"):
        Downloader().fetch_all(files, tmp_path, lambda _: None)
    assert time.monotonic() - begun < 5, "six tries take 15 s"
