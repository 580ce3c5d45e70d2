"""`stackctl exec`, `shell` and `forward` into runs of this machine: processes, and containers."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import STACKCTL, environment, hear_signals
from tests.support.entering import SERVE, served, try_a_shell
from tests.support.ports import free_ports
from tests.support.processes import background
from tests.support.terminal import terminal
from tests.support.waiting import until

pytestmark = pytest.mark.needs("linux")


class Serving:
    """A run of two nodes that serves, in a store of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.name = folder, port, f"t{os.getpid()}-{time.monotonic_ns() % 10**9}"
        self.env = environment(STACK_RUNS=str(folder / "runs"), KUBECONFIG=str(folder / "absent"), TERM="xterm")

    def __call__(self, command: str, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = [STACKCTL, command, self.name, *words]
        return subprocess.run(
            argv, env=self.env, cwd=self.folder, input=given, capture_output=True, timeout=120, check=False
        )

    def shell(self, rank: int) -> None:
        argv = [STACKCTL, "shell", self.name, "--rank", str(rank)]
        with terminal(argv, env=self.env, cwd=self.folder, size=(33, 77)) as shell:
            try_a_shell(shell, rank)

    @contextmanager
    def forward(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        argv = [STACKCTL, "forward", self.name, *words]
        with background(argv, env=self.env, cwd=self.folder, stderr=subprocess.PIPE) as running:
            yield running

    def end(self) -> None:
        """Have its ranks end well."""
        for rank in range(2):
            with self.forward(f"0:{self.port + rank}", "--rank", str(rank)) as running:
                get(served(running), "/end")


@contextmanager
def serving(folder: Path, *words: str, python: str = "python") -> Iterator[Serving]:
    folder.chmod(0o755)  # containers run as another user than root
    run = Serving(folder, free_ports(2))
    log = folder / "log"
    argv = [STACKCTL, "run", "--name", run.name, "--nodes", "2", *words, "--", python, "-c", SERVE, str(run.port)]
    with log.open("w") as said, subprocess.Popen(
        argv, env=run.env, cwd=folder, stdout=said, stderr=said, start_new_session=True, preexec_fn=hear_signals
    ) as process:  # fmt: skip
        try:
            until(lambda: log.read_text().count("] up") == 2 or process.poll() is not None, 90)
            assert process.poll() is None, log.read_text()
            yield run
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.terminate()
            process.wait(60)


def get(address: str, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
        data: bytes = answer.read()
    return data


def commands_are_run(run: Serving, where: str) -> None:
    script = "echo $RANK of $WORLD_SIZE in $PWD, ${STACK_TOKEN:-no token}; echo said >&2; exit 7"
    done = run("exec", "--rank", "1", "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (7, b"said\n"), done
    assert done.stdout.decode() == f"1 of 2 in {where}, no token\n"
    many = bytes(range(256)) * 12_000
    echoed = run("exec", "--", "cat", given=many)
    assert (echoed.returncode, echoed.stderr, echoed.stdout == many) == (0, b"", True)
    absent = run("exec", "--", "no-such-program")
    assert (absent.returncode, absent.stdout) == (127, b"")
    assert absent.stderr.startswith(b"error: there is no program 'no-such-program' where the rank runs\n")
    beyond = run("exec", "--rank", "2", "--", "true")
    assert (beyond.returncode, beyond.stderr) == (2, b"error: --rank 2: must be from 0 to 1\n")
    nothing = run("exec")
    assert (nothing.returncode, nothing.stderr.splitlines()[0]) == (2, b"error: stackctl exec: there is no command")


def shells_are_opened(run: Serving) -> None:
    run.shell(1)
    piped = run("shell", given=b"echo rank $RANK\nexit 4\n")
    assert (piped.returncode, piped.stdout) == (4, b"rank 0\n")


def nothing_is_entered(run: Serving) -> None:
    for words in (["exec", "--", "true"], ["shell"], ["forward", str(run.port)]):
        done = run(*words)
        said = f"error: {run.name}: has ended (succeeded): nothing of it runs\n"
        assert (done.returncode, done.stderr.startswith(said.encode())) == (2, True), done.stderr


def test_processes_are_entered(tmp_path: Path) -> None:
    with serving(tmp_path) as run:
        commands_are_run(run, str(tmp_path))
        shells_are_opened(run)
        port = run.port + 1
        here = run("forward", str(port), "--rank", "1")
        said = f"{run.name} runs on this machine, so nothing needs to be forwarded: port {port} of rank 1 of {run.name}"
        assert (here.returncode, here.stderr.decode()) == (0, f"{said} is 127.0.0.1:{port}\n")
        with run.forward(f"0:{port}", "--rank", "1") as running:
            address = served(running)
            assert get(address, "/a") == b"rank 1 /a"
            assert len(get(address, "/large")) == 3_000_000
            taken = run("forward", f"{address.partition(':')[2]}:{port}")
            assert taken.returncode == 3
            assert b"cannot be had: Address already in use" in taken.stderr
        wrong = run("forward", "a:b")
        assert (wrong.returncode, b"a:b: is no port" in wrong.stderr) == (2, True)
        run.end()
    nothing_is_entered(run)


def test_where_a_rank_has_no_shell_that_is_said(tmp_path: Path) -> None:
    """The rank's PATH leads to none, as in an image without one."""
    with serving(tmp_path, "--env", "PATH=/absent", "--env", "SHELL=", python=sys.executable) as run:
        done = run("shell")
        said = b"error: there is no shell where the rank runs, neither bash nor sh\n"
        assert (done.returncode, done.stdout, done.stderr.startswith(said)) == (127, b"", True), done
        assert run("exec", "--", sys.executable, "-c", "print(1)").stdout == b"1\n"
        run.end()


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_containers_are_entered(image: str, tmp_path: Path) -> None:
    with serving(tmp_path, "--on", "compose") as run:
        commands_are_run(run, "/workspace")
        shells_are_opened(run)
        with run.forward(f"0:{run.port + 1}", "--rank", "1") as running:
            address = served(running)
            assert get(address, "/a") == b"rank 1 /a"
            assert len(get(address, "/large")) == 3_000_000
        with run.forward("0:9") as running:
            address = served(running)
            with pytest.raises(http.client.RemoteDisconnected):
                get(address, "/")
            assert running.stderr is not None
            assert running.stderr.readline() == f"note: port 9 of rank 0 of {run.name}: Connection refused\n"
        run.end()
    nothing_is_entered(run)
