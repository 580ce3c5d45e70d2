"""A cluster for tests: one of our own, or one that is given."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from tests.cluster.harness import control_plane, fake_nodes, images, nodes, programs
from tests.cluster.harness.api import Api, ApiError
from tests.cluster.harness.namespaces import Namespaces
from tests.cluster.harness.site import GPUS, NODES

GIVEN = os.environ.get("STACK_TEST_KUBECONFIG", "")
"""The kubeconfig of another cluster to run the tests on."""

CONNECTIONS = 4
"""To create many objects at once."""


def is_ready(node: dict[str, Any]) -> bool:
    """Whether a Node object's Ready condition holds."""
    conditions = node.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


class Cluster:
    """What every cluster offers."""

    kubeconfig: Path
    nodes: tuple[str, ...]
    kubectl_program = "kubectl"

    def kubectl(self, *words: str, given: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl; returns the finished process."""
        argv = [self.kubectl_program, f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(words)}: {done.stderr}"
        return done

    def get(self, *words: str) -> dict[str, Any]:
        """What `kubectl get` says, as data."""
        found = json.loads(self.kubectl("get", *words, "--output=json").stdout)
        assert isinstance(found, dict)
        return found

    def apply(self, *objects: object) -> None:
        self.kubectl("apply", "--filename=-", given=json.dumps({"kind": "List", "apiVersion": "v1", "items": objects}))

    def ready(self, node: str) -> bool:
        """Whether a node's Ready condition holds."""
        return is_ready(self.get("node", node))


class GivenCluster(Cluster):
    """The cluster of STACK_TEST_KUBECONFIG."""

    def __init__(self) -> None:
        self.kubeconfig = Path(GIVEN)
        self.nodes = tuple(node["metadata"]["name"] for node in self.get("nodes")["items"])


class OwnCluster(Cluster):
    """A cluster on this machine, which a test may do anything to."""

    kubectl_program = programs.program("kubectl")

    def __init__(
        self, tags: Sequence[str] = (), *, simulated: int = 0, release: str = "kubernetes", features: Sequence[str] = ()
    ) -> None:
        """Start it, its nodes with these images of the Docker engine; returns when the nodes are ready.

        Args:
            release: The part that its control plane is of; its nodes stay those of `kubernetes`.
            features: Which of its features are switched on.
            simulated: So many simulated nodes, `fake-0` and so on, instead of real ones.
        """
        self.loaded: dict[str, str] = {}
        with ExitStack() as ending:
            self.namespaces = ending.enter_context(closing(Namespaces()))
            self.site = self.namespaces.site
            self.nodes = () if simulated else tuple(map(self.site.node_name, range(NODES)))
            self.kubeconfig = self.site.folder / "kubeconfig"
            self.credentials = credentials = control_plane.Credentials.make(self.nodes)
            self.parts = control_plane.prepare(self.site, credentials, simulated=simulated > 0, release=release)
            parts = {name: control_plane.with_features(name, argv, features) for name, argv in self.parts.items()}
            self.api = ending.enter_context(closing(self.connection()))
            self.node_commands = {
                name: nodes.prepare(self.site, index, credentials.kubelets[name])
                for index, name in enumerate(self.nodes)
            }
            controllers = parts.pop("controllers")
            for name, argv in {**parts, **self.node_commands}.items():
                self.namespaces.start(name, argv)
            self.wait(lambda: self.api.request("GET", "/readyz") == "ok", 60, "the API server is not ready")
            self.namespaces.start("controllers", controllers)  # the only part that does not wait for the API server
            for index, name in enumerate(self.nodes):
                self.make_ready(name)
                self.containerd(index).load_pause()
            for tag in tags:
                self.load_image(tag)
            if simulated:
                self.create("/api/v1/nodes", [fake_nodes.node(f"fake-{index}", GPUS) for index in range(simulated)])
                self.namespaces.start("kwok", fake_nodes.command(self.kubeconfig, self.site.server))
            self.ending = ending.pop_all()

    def connection(self) -> Api:
        """A connection of its own to the API server, as the administrator."""
        return Api(self.site.server, control_plane.certificate(self.site), self.credentials.admin)

    def create(self, path: str, objects: Sequence[object]) -> None:
        """Create many objects under one path, over a few connections at once."""
        shares = [objects[first::CONNECTIONS] for first in range(CONNECTIONS)]

        def send(share: Sequence[object]) -> None:
            with closing(self.connection()) as api:
                for row in share:
                    api.request("POST", path, row)

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(send, shares))

    def stop(self) -> None:
        """End it. Nothing of it is left: see `jail.py`."""
        self.ending.close()

    def wait(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Wait for a condition; what is not reachable or not there yet counts as not fulfilled."""
        end = time.monotonic() + seconds
        while True:
            with suppress(OSError, ApiError):
                if condition():
                    return
            ended = self.namespaces.ask("status")["ended"]
            if ended or time.monotonic() > end:
                logs = {name: (self.site.folder / f"{name}.log").read_text()[-2000:] for name in ended}
                raise RuntimeError(f"{otherwise}; ended: {', '.join(ended) or 'nothing'}\n" + "\n".join(logs.values()))
            time.sleep(0.1)

    def containerd(self, index: int) -> images.Containerd:
        folder = self.site.node_folder(index)
        root = folder / "var-lib" / "containerd"
        return images.Containerd(folder / "containerd.sock", root, folder / "layers" / "overlay2")

    def load_image(self, tag: str) -> None:
        """Bring an image from the Docker engine to every node."""
        identity = images.engine_id(tag)
        if self.loaded.get(tag) != identity:
            for index in range(NODES):
                self.containerd(index).load(tag)
            self.loaded[tag] = identity

    def make_ready(self, name: str) -> None:
        """Wait for a node, and have it advertise its GPUs, as a device plugin would."""
        path = f"/api/v1/nodes/{name}"
        self.wait(lambda: is_ready(self.api.request("GET", path)), 60, f"{name} is not ready")
        values = ((kind, "nvidia.com~1gpu", str(GPUS)) for kind in ("capacity", "allocatable"))
        patch = [{"op": "add", "path": f"/status/{kind}/{key}", "value": value} for kind, key, value in values]
        self.api.request("PATCH", f"{path}/status", patch, "application/json-patch+json")

    def switch(self, features: Sequence[str]) -> None:
        """Start the control plane anew, with these features switched on instead."""
        for name in control_plane.GATED:
            self.namespaces.kill(name)
            self.namespaces.start(name, control_plane.with_features(name, self.parts[name], features))
            if name == "apiserver":
                self.wait(lambda: self.api.request("GET", "/readyz") == "ok", 60, "the API server is not ready")

    def kill_node(self, name: str) -> None:
        """Kill a node with its pods, as a power failure does. Its Node object stays."""
        self.namespaces.kill(name)

    def restart_node(self, name: str) -> None:
        """Start a killed node again; returns when it is ready, and open for pods."""
        self.namespaces.start(name, self.node_commands[name])
        self.make_ready(name)
        path = f"/api/v1/nodes/{name}"
        self.wait(lambda: not self.api.request("GET", path)["spec"].get("taints"), 60, f"{name} takes no pods")

    def delete_node_object(self, name: str) -> None:
        """Remove a node's object, as a cloud's controller does with a lost machine."""
        self.api.request("DELETE", f"/api/v1/nodes/{name}")

    def shared_folder(self, name: str) -> Path:
        """A folder that every node sees under the same path, writable for all."""
        path = self.site.folder / "shared" / name
        path.mkdir(parents=True)
        path.chmod(0o777)
        return path
