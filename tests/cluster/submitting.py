"""`stackctl` against the cluster of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.harness.cluster import Cluster
from tests.commands import STACKCTL, environment

SMALL = ["--layers", "1", "--width", "32", "--heads", "2", "--context", "32", "--batch-size", "4", "--threads", "1",
         "--eval-tokens", "2000", "--sample-tokens", "20"]  # fmt: skip
"""Options of the GPT trainer for a model that is trained in seconds."""


def until(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], object] = lambda: "") -> None:
    """Wait for a condition; `otherwise` tells how things stand if it does not come about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not come about in {seconds} s: {otherwise()}"
        time.sleep(0.3)


@dataclass(frozen=True)
class Submitter:
    """A person with a run store, who submits to one namespace."""

    cluster: Cluster
    namespace: str
    image: str
    store: Path
    kubeconfig: Path

    def stackctl(self, command: str, *words: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run a stackctl command in the namespace; returns the finished process."""
        env = environment(KUBECONFIG=str(self.kubeconfig), STACK_RUNS=str(self.store))
        argv = [STACKCTL, command, "--namespace", self.namespace, *words]
        return subprocess.run(
            argv, env=env, cwd=self.store, capture_output=True, text=True, timeout=timeout, check=False
        )

    def submit(self, name: str, *words: str) -> None:
        """Submit a run, which must go well."""
        done = self.stackctl("submit", "--image", self.image, "--name", name, *words)
        assert done.returncode == 0, done.stderr

    def status(self, name: str) -> dict[str, Any]:
        return self._json("status", name)

    def explain(self, name: str) -> dict[str, Any]:
        return self._json("explain", name)

    def wait_for(self, name: str, state: str, seconds: float) -> dict[str, Any]:
        """Wait until a run is in a state; returns its status."""
        until(lambda: self.status(name)["state"] == state, seconds, lambda: self.explain(name))
        return self.status(name)

    def kubectl(self, *words: str, check: bool = True) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *words, check=check).stdout

    def pods(self, name: str) -> list[dict[str, Any]]:
        found = self.cluster.get("pods", "--namespace", self.namespace, "--selector", f"stackctl.io/run={name}")
        return sorted(
            found["items"], key=lambda pod: pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
        )

    def objects(self) -> list[str]:
        """Every object in the namespace that a run consists of."""
        kinds = "jobs,pods,services,secrets,networkpolicies"
        return self.kubectl(
            "get", kinds, "--output=name", "--selector", "app.kubernetes.io/managed-by=stackctl"
        ).split()

    def _json(self, *words: str) -> dict[str, Any]:
        done = self.stackctl(*words, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found


def locally(folder: Path, *words: str) -> dict[str, Any]:
    """The result of the reference job as processes on this machine."""
    argv = [STACKCTL, "run", "gpt", "--out", str(folder / "local"), *words]
    done = subprocess.run(argv, env=dict(os.environ), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "local" / "result.json").read_text())
    assert isinstance(result, dict)
    return result
