"""A server that goes over to another model: no request fails, and what cannot be served replaces nothing."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from stackrt.serve import orders
from tests.support.load import Clients
from tests.support.processes import background, children
from tests.support.served import ROOT, Served, served
from tests.support.waiting import until


def order(server: Served, *words: str) -> tuple[int, str]:
    """What comes of it."""
    argv = [sys.executable, "-P", "-m", "stackrt.serve.order", str(server.log.parent / "next"), *words]
    env = {"PYTHONPATH": str(ROOT / "images"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=180, check=False)
    return done.returncode, done.stderr


def cpu_seconds(server: Served) -> float:
    """What its worker has computed so far: unlike the time on the clock that is the same on a busy machine."""
    fields = Path(f"/proc/{server.ready['worker']}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def goes_over_at_once(server: Served, models: Path) -> None:
    """Who asks as soon as an order is carried out is answered by its model, and no more by the one before."""
    file = server.log.parent / "next"
    for model, name, path, told in [
        ("pictures.keras", "digits", "/v1/models/digits", "model_version_status"),
        ("words", "words", "/v1/models", "data"),
    ]:
        given = orders.give(file, [str(models / model), "--name", name])
        deadline = time.monotonic() + 120
        while (answer := orders.answered(file, given)) is None or answer.state == "loading":
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert answer.state == "serving", answer.said
        for _ in range(8):
            assert server.get(path).keys() & {"data", "model_version_status"} == {told}


@pytest.mark.needs("linux")
def test_another_model_takes_over_and_what_cannot_be_served_does_not(models: Path, tmp_path: Path) -> None:
    host_of = "127.0.0.1"
    with served(models / "words", tmp_path / "log", "--orders", str(tmp_path / "next")) as server:
        print(f"ready after {server.ready['seconds']} s, {cpu_seconds(server):.1f} s of them on a core")
        assert cpu_seconds(server) <= 10
        port = int(server.address.rpartition(":")[2])

        def place() -> tuple[str, int]:
            return host_of, port

        asked = {"model": "words", "prompt": "To be", "max_tokens": 4, "temperature": 0}
        with Clients(place, "/v1/completions", asked, "choices") as clients:
            until(lambda: len(clients.seconds) > 100, 60)
            code, said = order(server, str(models / "nowhere"))
            assert (code, "nowhere: there is no such file or folder" in said) == (78, True), said
            broken = tmp_path / "broken.keras"
            broken.write_bytes(b"PK")
            assert order(server, str(broken))[0] == 78
            assert "belongs to the service" in order(server, str(models / "words"), "--port", "1")[1]
            for workers in ("2", "1"):
                assert order(server, str(models / "words"), "--workers", workers) == (0, "")
            before = len(clients.seconds)
            until(lambda: len(clients.seconds) > before + 100, 60)
        print(clients.told)
        assert not clients.failed, clients.failed[:5]
        goes_over_at_once(server, models)
        until(lambda: [row["event"] for row in server.rows].count("ended") == 5, 30)
        assert server.stop() == 0
    assert not [row for row in server.rows if row["event"] in ("error", "worker-ended")]


@pytest.mark.needs("linux")
def test_an_order_whose_workers_cannot_be_started_is_refused(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that answers goes on; that what is temporary has been cleaned away changes nothing."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    file = str(tmp_path / "next")
    with monkeypatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        with served(models / "words", tmp_path / "log", "--workers", "2", "--orders", file) as server:
            shutil.rmtree(temporary)
            with urllib.request.urlopen(server.address + "/metrics", timeout=60) as answer:
                assert b"stack_serve_waiting" in answer.read()
            with_one_descriptor_left(server.process.pid)
            code, said = order(server, str(models / "words"))
            assert (code, "its workers cannot be started: Too many open files" in said) == (78, True), said
            assert server.get("/health/ready")
            assert server.stop() == 0


def with_one_descriptor_left(pid: int) -> None:
    """Allow a process to open one file more, and no pipe."""
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    first, second = itertools.islice((number for number in itertools.count() if number not in used), 2)
    assert first < second
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (second, hard))


@pytest.mark.needs("linux")
def test_a_server_that_still_loads_ends_at_once(models: Path) -> None:
    argv = [sys.executable, "-P", "-m", "stackrt.serve", str(models / "words"), "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "images")}
    with background(argv, env=env) as server:
        until(lambda: children(server.pid), 60)
        server.terminate()
        output, _ = server.communicate(timeout=60)
    assert (server.returncode, output) == (0, "")
