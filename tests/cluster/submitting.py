"""`stackctl` against the cluster of the tests."""

from __future__ import annotations

import functools
import json
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stackctl.engines import kube
from stackctl.runs import explain, watch
from stackctl.runs.explain import Explanation
from stackctl.runs.observe import View
from tests.cluster.harness.cluster import Cluster
from tests.commands import STACKCTL, environment
from tests.support.processes import background
from tests.support.waiting import until


@functools.cache
def client(kubeconfig: Path) -> kube.Cluster:
    """Our own client of a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        return kube.Cluster()


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
        with self.background(command, *words) as running:
            out, err = running.communicate(timeout=timeout)
        return subprocess.CompletedProcess(running.args, running.returncode, out, err)

    def background(self, command: str, *words: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """A stackctl command in the namespace that goes on beside the test."""
        env = environment(KUBECONFIG=str(self.kubeconfig), STACK_RUNS=str(self.store))
        argv = [STACKCTL, command, "--namespace", self.namespace, *words]
        return background(argv, env=env, cwd=self.store, stderr=subprocess.PIPE)

    def submit(self, name: str, *words: str) -> None:
        """Submit a run, which must go well."""
        done = self.stackctl("submit", "--image", self.image, "--name", name, *words)
        assert done.returncode == 0, done.stderr

    def status(self, name: str) -> View:
        """How a run fares, as `stackctl status` finds it, without starting a process."""
        return watch.view(self._run(name))

    def explain(self, name: str) -> Explanation:
        """Why a run is where it is, as `stackctl explain` finds it, without starting a process."""
        return explain.explain(watch.facts(self._run(name)))

    def wait_for(self, name: str, state: str, seconds: float) -> View:
        """Wait until a run is in a state; returns its status."""
        until(lambda: self.status(name).state == state, seconds, lambda: self.explain(name))
        return self.status(name)

    def wait_for_cause(self, name: str, cause: str, seconds: float = 60) -> Explanation:
        """Wait until a run is explained by a cause; returns the explanation."""
        until(lambda: self.explain(name).cause == cause, seconds, lambda: self.explain(name))
        return self.explain(name)

    def kubectl(self, *words: str, check: bool = True) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *words, check=check).stdout

    def pods(self, name: str) -> list[dict[str, Any]]:
        found = self.cluster.get("pods", "--namespace", self.namespace, "--selector", f"stackctl.io/run={name}")
        return sorted(
            found["items"], key=lambda pod: pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
        )

    def objects(self, name: str = "") -> list[str]:
        """Every object in the namespace that a run consists of: of one run, or of all."""
        kinds = "jobs,pods,services,secrets,networkpolicies"
        selector = f"stackctl.io/run={name}" if name else "app.kubernetes.io/managed-by=stackctl"
        return self.kubectl("get", kinds, "--output=name", "--selector", selector).split()

    def folder(self, name: str) -> Path:
        """A run's folder in the run store."""
        [found] = self.store.glob(f"{name}@{self.namespace}@*")
        return found

    def cancel(self, name: str) -> None:
        """Cancel a run, which must go well, and wait until nothing of it is left."""
        done = self.stackctl("cancel", name)
        assert done.returncode == 0, done.stderr
        until(lambda: self.objects(name) == [], 60, lambda: self.objects(name))

    def told(self, command: str, name: str) -> dict[str, Any]:
        """What `stackctl status` or `explain` tells of a run, as data."""
        done = self.stackctl(command, name, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def _run(self, name: str) -> watch.Run:
        return watch.find(client(self.kubeconfig), name, self.namespace)
