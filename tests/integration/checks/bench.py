"""Where faults are planted: a small image of files in a folder, and containers of the real images."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stackrt.checks.context import Context, ImageFacts
from stackrt.checks.result import Result
from tests.commands import ROOT, STACKCTL

FACTS = ImageFacts(
    image="pytorch",
    variant="cpu",
    framework="torch",
    horovod=False,
    versions={"torch": "2.13.0+cpu"},
    cuda="",
    minimum_driver="",
    gpu_architectures=(),
    python="3.11",
    base="debian:bookworm-slim",
    lock="0" * 64,
    locks=("all.txt",),
    budget=0,
)


SICK = (
    "cd /opt/venv/lib/python3*/site-packages",
    "rm -r sympy*",
    "rm torch/lib/libc10.so",
    "echo '# changed' >> filelock/__init__.py",
    "printf -- '-----BEGIN OPENSSH PRIVATE KEY-----\\nabc\\n' > /etc/id_ed25519",
    "echo 'index-url = https://me:hunter2@pypi.example/simple' > /etc/pip.conf",
)
"""Shell commands that break an image: packages, a library, bytecode, a key, a password."""


class Alone:
    """A process without any framework that forks one for each check, as the suite's own does."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT / "images"), str(ROOT)])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.checks.alone"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, name: str, context: Context, plant: Callable[[], None] | None, env: Mapping[str, str]) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        pickle.dump((name, context, plant, dict(env)), self.process.stdin)
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)

    def close(self) -> None:
        self.process.communicate(timeout=30)


class Bench:
    """What a planted fault works with.

    Attributes:
        tmp: An empty folder of this case's own.
    """

    def __init__(self, tmp: Path, built: Callable[[str], str], alone: Alone) -> None:
        self.tmp = tmp
        self._built = built
        self._alone = alone

    def context(self, image: ImageFacts | None = FACTS, **changes: Any) -> Context:
        """A context whose root, environment and facts are folders below `tmp`; `changes` are fields of Context."""
        folders = {name: self.tmp / name for name in ("root", "site", "stack", "scratch")}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        return Context(**{"image": image, **folders, **changes})

    def facts(self, **changes: Any) -> ImageFacts:
        """Facts of a small image, with changes."""
        return dataclasses.replace(FACTS, **changes)

    def run(
        self,
        check: str,
        context: Context | None = None,
        *,
        plant: Callable[[], None] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Make one check as the suite does, in a process of its own, and return what it found.

        Args:
            plant: A function at the top of its module, called in the process before the check.
            env: More environment variables.
        """
        result = self._alone.run(check, context or self.context(), plant, env or {})
        assert isinstance(result, Result), result
        return result

    def in_pythons(self, image: str, code: str, check: str) -> Result:
        """Make one check in a container of an image where each Python runs some code at its start."""
        folder = self.tmp / "start"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        folder.chmod(0o755)  # the container is another user
        return self.report(image, "--volume", f"{folder}:/start:ro", "--env", "PYTHONPATH=/start", only=(check,))[check]

    def whole(self, image: str) -> Any:
        """The report of `stackctl test` on a built image, as its JSON."""
        return whole(self._built(image))

    def sick(self) -> dict[str, Result]:
        """What the suite finds in one PyTorch container with many faults."""
        plant = "; ".join(SICK)
        only = ("lock-match", "pip-check", "ldd-clean", "import-time", "bytecode", "non-root", "no-keys",
                "no-credentials", "ulimits")  # fmt: skip
        return self.report("pytorch", "--user", "0", "--ulimit", "nofile=512", plant=plant, only=only)

    def report(
        self, image: str, *docker: str, plant: str = "", only: tuple[str, ...] = (), words: tuple[str, ...] = ()
    ) -> dict[str, Result]:
        """Run the suite in a container of a built image, `pytorch` or `pytorch:cuda`; what each check found.

        Equal calls share one run.

        Args:
            docker: More options for `docker run`.
            plant: A shell command run in the container, before the suite.
            only: The checks to run; all by default.
            words: More options for the suite.
        """
        return report(self._built(image), docker, plant, only, words)


@functools.cache
def report(
    tag: str, docker: tuple[str, ...], plant: str, only: tuple[str, ...], words: tuple[str, ...]
) -> dict[str, Result]:
    """See Bench.report."""
    if not (docker or plant or only or words):
        return results(whole(tag))
    chosen = ["--only", *only] if only else []
    suite = shlex.join(["exec", "python", "-P", "-m", "stackrt.checks", "--json", "-", *chosen, *words])
    # The last of two equal options counts.
    argv = ["docker", "run", "--rm", "--shm-size", "1g", *docker, tag, "sh", "-c", f"{plant or ':'}; {suite}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1, 2), done.stderr
    assert done.stdout, done.stderr
    return results(json.loads(done.stdout))


@functools.cache
def whole(tag: str) -> Any:
    """The report of `stackctl test` on a built image: the healthy case of most checks."""
    argv = [STACKCTL, "test", tag, "--json", "-"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def results(report: Any) -> dict[str, Result]:
    """What each check of a report found."""
    names = [field.name for field in dataclasses.fields(Result)]
    return {row["name"]: Result(**{name: row[name] for name in names}) for row in report["checks"]}
