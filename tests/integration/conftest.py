"""What integration tests share: seeing that nothing is left behind, runs in the background, a checkout to spoil."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.commands import ROOT, environment
from tests.support.running import LOOP, Running

Copy = Callable[..., "subprocess.CompletedProcess[str]"]
"""stackctl, run from a copy of the checkout."""

OURS = re.compile(r"stacktest|t\d+-\d+|(gpt|python|loop)-\d{4}-\d{6}")
"""Names of what a test starts; other work may share the engine."""


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """See that a test left no container, network or volume of its own behind."""
    before = _docker_things()
    yield
    left = {kind: names - before[kind] for kind, names in _docker_things().items()}
    assert not any(left.values()), left


def _docker_things() -> dict[str, set[str]]:
    listing = {
        "containers": ["ps", "--all", "--format", "{{.Names}}"],
        "networks": ["network", "ls", "--format", "{{.Name}}"],
        "volumes": ["volume", "ls", "--format", "{{.Name}}"],
    }
    found = {}
    for kind, words in listing.items():
        names = subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.split()
        found[kind] = {name for name in names if OURS.match(name)}
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start runs that are ended, with all they started, when the test ends."""
    running: list[Running] = []

    def begin(*words: str) -> Running:
        tmp_path.chmod(0o755)  # containers run as another user than root
        (tmp_path / "loop.py").write_text(LOOP)
        running.append(Running(tmp_path, *words))
        return running[-1]

    yield begin
    for run in running:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            run.process.send_signal(signal.SIGINT)
            try:
                run.process.wait(30)
            except subprocess.TimeoutExpired:
                run.process.kill()
                run.process.wait()
        run.log.close()


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Have this process take SIGINT as at a terminal: one that was started in a shell's background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def copy(tmp_path: Path) -> tuple[Path, Copy]:
    """A copy of the checkout without its tests and docs, and stackctl run from it."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("stackctl", "images", "compose", "k8s"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("compose.yaml", ".hadolint.yaml"):
        shutil.copy(ROOT / name, tmp_path)

    def run(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        given = environment(PYTHONPATH=str(tmp_path), **(env or {}))
        code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from stackctl.cli.main import main; main()"
        argv = [sys.executable, "-c", code, str(tmp_path), *words]
        return subprocess.run(argv, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=300, check=False)

    return tmp_path, run


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the repository, with the changes of this working tree."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, unmounted whatever happens."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this machine cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
