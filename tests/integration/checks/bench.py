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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
FOUND_SICK = ("lock-match", "pip-check", "ldd-clean", "import-time", "bytecode", "non-root", "no-keys",
              "no-credentials", "ulimits")  # fmt: skip
SHORT = ("rm /usr/bin/*g++*", "touch /etc/hidden", "chmod 0 /etc/hidden")
"""And those that take away what training needs, and hide a file from whoever has no rights."""


class Alone:
    """A process that forks one for each check, as the suite's own does: without any framework, or with one loaded."""

    def __init__(self, *loaded: str) -> None:
        path = os.pathsep.join([str(ROOT / "images"), str(ROOT)])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.checks.alone", *loaded],
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


class Alones:
    """The processes that checks are made in, each started when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, ...], Alone] = {}

    def having(self, *loaded: str) -> Alone:
        """One that has loaded these modules: every check that needs them is spared their import."""
        if loaded not in self._made:
            self._made[loaded] = Alone(*loaded)
        return self._made[loaded]

    def close(self) -> None:
        for one in self._made.values():
            one.close()


class Reports:
    """The reports of `stackctl test` on whole images, made one by one beside what the tests do meanwhile.

    Args:
        built: Builds an image, `pytorch` or `pytorch:cuda`, and returns its tag.
    """

    def __init__(self, built: Callable[[str], str]) -> None:
        self._built = built
        self._pool = ThreadPoolExecutor(1)
        self._made: dict[str, Future[Any]] = {}

    def begin(self, image: str) -> None:
        """Have the report of an image made, after those that were begun before."""
        if image not in self._made:
            self._made[image] = self._pool.submit(self._make, image)

    def of(self, image: str) -> Any:
        """An image's report, as its JSON."""
        self.begin(image)
        return self._made[image].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _make(self, image: str) -> Any:
        argv = [STACKCTL, "test", self._built(image), "--json", "-"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


class Bench:
    """What a planted fault works with.

    Attributes:
        tmp: An empty folder of this case's own.
    """

    def __init__(self, tmp: Path, built: Callable[[str], str], reports: Reports, alones: Alones) -> None:
        self.tmp = tmp
        self._built = built
        self._reports = reports
        self._alones = alones

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
        loaded: Sequence[str] = (),
    ) -> Result:
        """Make one check as the suite does, in a process of its own, and return what it found.

        Args:
            plant: A function at the top of its module, called in the process before the check.
            env: More environment variables.
            loaded: Modules that the check imports, and that other cases import as well.
        """
        alone = self._alones.having(*loaded)
        result = alone.run(check, context or self.context(), plant, env or {})
        assert isinstance(result, Result), result
        return result

    def in_pythons(self, image: str, code: str, *checks: str) -> dict[str, Result]:
        """Make checks in a container of an image where each Python runs some code first; equal calls share it."""
        start = f"cat > /tmp/start/sitecustomize.py <<'END'\n{code}\nEND\n"
        plant = f"mkdir /tmp/start\n{start}export PYTHONPATH=/tmp/start"
        return self.report(image, plant=plant, only=checks)

    def sick(self) -> dict[str, Result]:
        """What the suite finds in one PyTorch container with many faults."""
        plant = "; ".join(SICK)
        return self.report("pytorch", "--user", "0", "--ulimit", "nofile=512", plant=plant, only=FOUND_SICK)

    def short(self) -> dict[str, Result]:
        """What it finds where there is no compiler, hardly any shared memory, and a file that this user cannot read."""
        blind = ["--cap-drop", "DAC_OVERRIDE", "--cap-drop", "DAC_READ_SEARCH"]
        docker = ["--user", "0", *blind, "--shm-size", "4m"]
        return self.report("pytorch", *docker, plant="; ".join(SHORT), only=("compile-cpu", "no-keys", "shm-size"))

    def sealed(self) -> dict[str, Result]:
        """What it finds on a root that is read-only, with Docker's default of shared memory."""
        docker = ["--read-only", "--tmpfs", "/tmp:exec", "--shm-size", "64m"]
        return self.report("pytorch", *docker, only=("non-root", "shm-size"))

    def report(
        self, image: str, *docker: str, plant: str = "", only: tuple[str, ...] = (), words: tuple[str, ...] = ()
    ) -> dict[str, Result]:
        """Run the suite in a container of a built image, `pytorch` or `pytorch:cuda`; what each check found.

        Equal calls share one run; with nothing but an image it is `stackctl test`.

        Args:
            docker: More options for `docker run`.
            plant: Shell commands run in the container, before the suite.
            only: The checks to run; all by default.
            words: More options for the suite.
        """
        if docker or plant or only or words:
            return report(self._built(image), docker, plant, only, words)
        return results(self._reports.of(image))


@functools.cache
def report(
    tag: str, docker: tuple[str, ...], plant: str, only: tuple[str, ...], words: tuple[str, ...]
) -> dict[str, Result]:
    """See Bench.report."""
    chosen = ["--only", *only] if only else []
    suite = shlex.join(["exec", "python", "-P", "-m", "stackrt.checks", "--json", "-", *chosen, *words])
    # The last of two equal options counts.
    argv = ["docker", "run", "--rm", "--shm-size", "1g", *docker, tag, "sh", "-c", f"{plant}\n{suite}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1, 2), done.stderr
    assert done.stdout, done.stderr
    return results(json.loads(done.stdout))


def results(report: Any) -> dict[str, Result]:
    """What each check of a report found."""
    names = [field.name for field in dataclasses.fields(Result)]
    return {row["name"]: Result(**{name: row[name] for name in names}) for row in report["checks"]}
