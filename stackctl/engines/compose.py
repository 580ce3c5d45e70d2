"""Docker Compose projects: start one, show its output, wait for its containers, remove it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from stackctl.engines import process
from stackctl.engines.local import STRAGGLER_SECONDS
from stackctl.errors import CommandFailed, MissingHere
from stackrt.signals import NOTICES, STOPS, TOGETHER, handled, undisturbed


def run(file: Path, project: str, secrets: Mapping[str, str], *, to_stderr: bool = False) -> list[int]:
    """Start a project, follow its output, wait until all its containers have ended, and remove it.

    Returns:
        The containers' exit codes, in the order of their services' names.

    A stop signal stops the containers (Compose sends SIGTERM and waits for the stop_grace_period); a later one kills
    them. SIGUSR1 and SIGUSR2 go on to the launchers.

    Args:
        secrets: Environment variables that the file refers to.
        to_stderr: Send the containers' output to our standard error.

    Raises:
        CommandFailed: Compose could not start the project; nothing of it is left.
    """
    env = {**os.environ, **secrets}
    base = ["docker", "compose", "--file", str(file), "--project-name", project]
    stops: list[subprocess.Popen[bytes]] = []
    notices: list[subprocess.Popen[bytes]] = []
    stopped_at = 0.0

    def hear(number: int) -> None:
        nonlocal stopped_at
        now = time.monotonic()
        if number in NOTICES:
            notices.append(_start([*base, "kill", "--signal", signal.Signals(number).name], env))
        elif not stops:
            stopped_at = now
            stops.append(_start([*base, "stop"], env))
        elif now - stopped_at > TOGETHER and number != signal.SIGHUP:  # a terminal that closes may send it twice
            stops.append(_start([*base, "kill"], env))

    try:
        with handled(hear, (*STOPS, *NOTICES)):
            process.run([*base, "up", "--detach", "--no-build", "--pull", "never", "--quiet-pull"], env=env)
            if stops:
                stops.append(_start([*base, "stop"], env))  # the first saw only the containers that were there
            rows = [
                json.loads(line)
                for line in process.run([*base, "ps", "--all", "--format", "json"], env=env).splitlines()
            ]
            # `compose logs` would add its own lines and terminal codes; each line already names its rank.
            logs = [_start(["docker", "logs", "--follow", row["ID"]], env, 2 if to_stderr else None, 2) for row in rows]
            try:
                codes = _wait(base, rows, env)
            finally:
                for follower in logs:
                    _end(follower)
        return codes
    except CommandFailed as error:
        if stops:
            raise KeyboardInterrupt from None  # Ctrl-C ended a docker command of ours as well
        if "could not select device driver" in error.output:
            raise MissingHere(
                "Docker has no NVIDIA runtime here",
                hint="install the NVIDIA container toolkit, or train on the CPU with --procs",
            ) from None
        raise
    finally:
        with undisturbed():
            process.run([*base, "down", "--timeout", "0", "--remove-orphans"], env=env, apart=True)
            for running in (*stops, *notices):
                running.wait()


def containers(project: str, *, running: bool = False) -> list[str]:
    """The names of a project's containers, running or not, or of those that run."""
    label = f"label=com.docker.compose.project={project}"
    every = [] if running else ["--all"]
    return process.run(["docker", "ps", *every, "--filter", label, "--format", "{{.Names}}"]).split()


def _wait(base: list[str], rows: list[dict[str, str]], env: Mapping[str, str]) -> list[int]:
    """Wait for every container of a project; once one has failed, give the others a while and kill them."""
    waits = {row["ID"]: _start(["docker", "wait", row["ID"]], env, subprocess.PIPE) for row in rows}
    failed_at: float | None = None
    ended: dict[str, int] = {}
    try:
        while len(ended) < len(waits):
            time.sleep(0.05)
            for key, wait in waits.items():
                if key not in ended and wait.poll() is not None:
                    ended[key] = int(wait.communicate()[0].strip() or 1)
            if failed_at is None and any(ended.values()):
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > STRAGGLER_SECONDS:
                process.run([*base, "kill"], env=env)
                failed_at = time.monotonic()
    finally:
        for wait in waits.values():
            _end(wait, seconds=0)
    return [ended[row["ID"]] for row in sorted(rows, key=lambda row: row["Service"])]


def _start(
    argv: list[str], env: Mapping[str, str], stdout: int | None = subprocess.DEVNULL, stderr: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    # A session of its own, so that Ctrl-C does not end the programs that show us how the containers end.
    return subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
    )


def _end(running: subprocess.Popen[bytes], *, seconds: float = 5) -> None:
    try:
        running.wait(seconds)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
