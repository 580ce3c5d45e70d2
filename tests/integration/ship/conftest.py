"""A small image of the same steps as the large ones, a registry, and a world without a network."""

from __future__ import annotations

import contextlib
import re
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar

import pytest

from tests.commands import PREFIX, ROOT, environment
from tests.machine import registry_program

CATALOG = """\
schema = 1
[bases.bookworm]
image = "debian:bookworm-slim"
python = "3.11"
wheel_platform = "x86_64-manylinux_2_28"
[tools]
uv = "{uv}"
[devel]
apt = ["file"]
packages = ["wheel==0.45.1"]
[families.torch]
template = "pytorch.dockerfile.j2"
apt = ["ca-certificates", "python3", "tini"]
compiler = ["make"]
packages = ["packaging==25.0"]
framework_layer = ["iniconfig", "pluggy"]
[images.small]
summary = "A small image of the same steps as the large ones"
framework = "torch"
base = "bookworm"
[images.small.variants.cpu]
framework_packages = ["iniconfig==2.3.0", "pluggy==1.6.0"]
budget_gb = 0.3
"""
IMAGE = f"{PREFIX}small:cpu"

T = TypeVar("T")
S = TypeVar("S", bound=socketserver.BaseServer)


class Checkout:
    """A copy of what stackctl reads, with the small catalog, under git; and stackctl run from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("stackctl", "images", "k8s"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in [*(root / "images/locks").iterdir(), *(root / "images/dockerfiles").iterdir()]:
            path.unlink()
        (root / "compose").mkdir()
        uv = re.search(r'^uv = "(.*)"$', (ROOT / "images/catalog.toml").read_text(), re.MULTILINE)
        assert uv
        (root / "images/catalog.toml").write_text(CATALOG.format(uv=uv[1]))
        (root / ".gitignore").write_text("__pycache__/\n")
        subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
        for words in (["lock"], ["render"]):
            done = self.stackctl(*words)
            assert done.returncode == 0, done.stderr
        self.commit("the small catalog")

    def stackctl(self, *words: str, inside: Sequence[str] = (), **env: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from stackctl.cli.main import main; main()"
        argv = [*inside, sys.executable, "-c", code, str(self.root), *words]
        given = environment(**env)
        return subprocess.run(argv, cwd=self.root, env=given, capture_output=True, text=True, timeout=600, check=False)

    def commit(self, message: str) -> None:
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
        subprocess.run([*git, "add", "--all"], cwd=self.root, check=True)
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", message], cwd=self.root, check=True)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    yield Checkout(tmp_path_factory.mktemp("checkout"))
    subprocess.run(["docker", "image", "rm", "--force", IMAGE], capture_output=True, check=False)


@pytest.fixture(scope="session")
def house(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A wheelhouse of the small image, and what was said when it was collected."""
    folder = tmp_path_factory.mktemp("house")
    done = checkout.stackctl("wheelhouse", "small", str(folder))
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start a registry on a free port of this machine; returns its address. More of its configuration may be given."""
    running: list[tuple[subprocess.Popen[bytes], IO[str]]] = []

    def start(more: str = "", inside: Sequence[str] = ()) -> str:
        folder = tmp_path / f"registry-{len(running)}"
        folder.mkdir()
        (folder / "config.yml").write_text(
            "version: 0.1\nhttp: {addr: '127.0.0.1:0'}\n"
            f"storage:\n  filesystem: {{rootdirectory: '{folder}/data'}}\n{more}"
        )
        log = (folder / "log").open("w")
        process = subprocess.Popen(
            [*inside, registry_program(), "serve", str(folder / "config.yml")], stdout=log, stderr=subprocess.STDOUT
        )
        running.append((process, log))
        return waited(lambda: re.search(r"listening on (127\.0\.0\.1:\d+)", (folder / "log").read_text()))[1]

    yield start
    for process, log in running:
        process.terminate()
        process.wait(10)
        log.close()


class AirGap:
    """A world without a network but its own loopback: an engine with an empty store, and what is started in it."""

    def __init__(self, folder: Path) -> None:
        self.docker = f"unix://{folder}/socket"
        (folder / "daemon.json").write_text('{"features": {"containerd-snapshotter": true}}')
        argv = ["dockerd", "--config-file", f"{folder}/daemon.json", "--data-root", f"{folder}/data"]
        argv += ["--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid", "--host", self.docker]
        argv += ["--bridge", "none", "--iptables=false", "--ip6tables=false"]
        script = 'ip link set lo up && exec "$@"'
        with (folder / "log").open("w") as log:
            self.engine = subprocess.Popen(
                ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *argv], stdout=log, stderr=subprocess.STDOUT
            )
        self.inside = ["nsenter", f"--net=/proc/{self.engine.pid}/ns/net"]


@pytest.fixture
def air_gap() -> Iterator[AirGap]:
    folder = Path(tempfile.mkdtemp(prefix="air-"))  # short: the path of a socket has at most 107 characters
    world = AirGap(folder)
    try:
        waited(lambda: "API listen on" in (folder / "log").read_text())
        yield world
    finally:
        world.engine.terminate()
        world.engine.wait(60)
    shutil.rmtree(folder)


@contextlib.contextmanager
def served(server: S) -> Iterator[S]:
    """Have a server answer, in a thread, while the block runs."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def waited(check: Callable[[], T | None], seconds: float = 120) -> T:
    """The first true answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := check():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"nothing in {seconds} s")
