"""A package index that breaks off in mid-file, or has other files than were locked: real builds."""

from __future__ import annotations

import io
import json
import re
import subprocess
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.ship.conftest import IMAGE, Checkout, served

pytestmark = pytest.mark.needs("docker", "index")

WHEEL = "packaging-25.0-py3-none-any.whl"
FRAMEWORK = ["iniconfig-2.3.0-py3-none-any.whl", "pluggy-1.6.0-py3-none-any.whl"]


class Index(ThreadingHTTPServer):
    """A package index of one folder, on the engine's bridge. `drops`: how often a file breaks off half-way.

    `lacks`: the name of a file that is not found, after a while in which others come.
    """

    def __init__(self, folder: Path) -> None:
        found = subprocess.run(["docker", "network", "inspect", "bridge"], capture_output=True, text=True, check=True)
        super().__init__((json.loads(found.stdout)[0]["IPAM"]["Config"][0]["Gateway"], 0), Handler)
        self.folder = folder
        self.drops = 0
        self.lacks = ""
        self.altered = False
        self.asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}/simple"


class Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        server, name = self.server, self.path.strip("/").rpartition("/")[2]
        server.asked[name] += 1
        if not name.endswith(".whl"):
            stem = name.replace("-", "_")
            links = [f'<a href="/files/{path.name}">{path.name}</a>' for path in server.folder.glob(f"{stem}-*.whl")]
            self.send(f"<html><body>{''.join(links)}</body></html>".encode(), "text/html")
            return
        if name == server.lacks:
            time.sleep(5)
            self.send_error(404)
            return
        content = (server.folder / name).read_bytes()
        if server.altered:
            content = packed_again(content)
        whole = server.asked[name] > server.drops
        self.send(content, "application/octet-stream", len(content) if whole else len(content) // 2)

    def send(self, content: bytes, kind: str, most: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:most])
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


def packed_again(wheel: bytes) -> bytes:
    """The same files in another archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(wheel)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return packed.getvalue()


@pytest.fixture
def index(house: tuple[Path, str]) -> Iterator[Index]:
    with served(Index(house[0])) as index:
        yield index


@pytest.fixture(params=["small-cpu.txt"])
def lock(checkout: Checkout, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The lock of the last layer, or another, with a comment that no build has seen: it is built, and what follows."""
    done = checkout.stackctl("build", "small")
    assert done.returncode == 0, done.stderr
    path = checkout.root / "images/locks" / request.param
    text = path.read_text()
    path.write_text(f"{text}# {uuid.uuid4()}\n")
    yield path
    path.write_text(text)


def image_id() -> str:
    argv = ["docker", "image", "inspect", "--format", "{{.Id}}", IMAGE]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.usefixtures("lock")
def test_files_that_break_off_are_fetched_again(checkout: Checkout, index: Index) -> None:
    index.drops = 2
    done = checkout.stackctl("build", "small", UV_DEFAULT_INDEX=index.url)
    assert done.returncode == 0, done.stderr
    assert index.asked[WHEEL] == 3


def test_a_file_with_another_hash_is_named_with_the_line_of_its_lock(
    checkout: Checkout, index: Index, lock: Path
) -> None:
    before, index.altered = image_id(), True
    done = checkout.stackctl("build", "small", UV_DEFAULT_INDEX=index.url)
    assert done.returncode == 1
    number = next(row for row, line in enumerate(lock.read_text().splitlines(), 1) if line.startswith("packaging=="))
    (error,) = re.findall(r"^error: (.*)$", done.stderr, re.MULTILINE)
    assert error.startswith(f"{lock}:{number}: a file of packaging has another hash than the lock")
    assert image_id() == before


@pytest.mark.usefixtures("lock")
@pytest.mark.parametrize("lock", ["small-cpu.framework.txt"], indirect=True)
def test_a_large_layer_keeps_what_an_installation_that_failed_had_fetched(checkout: Checkout, index: Index) -> None:
    index.lacks = FRAMEWORK[1]
    done = checkout.stackctl("build", "small", UV_DEFAULT_INDEX=index.url)
    assert done.returncode == 1
    index.lacks = ""
    done = checkout.stackctl("build", "small", UV_DEFAULT_INDEX=index.url)
    assert done.returncode == 0, done.stderr
    assert [index.asked[name] for name in FRAMEWORK] == [1, 2]
