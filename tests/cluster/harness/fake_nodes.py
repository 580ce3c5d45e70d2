"""Simulated nodes: kwok plays their kubelets, so that a thousand fit on one machine."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.harness import programs

ANNOTATION = "kwok.x-k8s.io/node"
STAGES = ("node/fast/node-initialize", "node/heartbeat-with-lease/node-heartbeat-with-lease", "pod/general")


def command(kubeconfig: Path, server: str) -> list[str]:
    """The command line of kwok: it manages the nodes with our annotation, and no other."""
    stage = programs.folder("kwok") / "stage"
    files = [stage / f"{name}.yaml" for name in STAGES[:2]] + sorted((stage / STAGES[2]).glob("pod-*.yaml"))
    return [
        programs.program("kwok"),
        f"--kubeconfig={kubeconfig}",
        f"--master={server}",
        f"--manage-nodes-with-annotation-selector={ANNOTATION}=fake",
        "--node-lease-duration-seconds=40",
        *(f"--config={path}" for path in files),
    ]


def node(name: str, gpus: int) -> dict[str, object]:
    """A simulated node's object. The taint keeps pods off that do not ask for it."""
    room = {"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {ANNOTATION: "fake"},
            "labels": {"kubernetes.io/hostname": name, "type": "kwok"},
        },
        "spec": {"taints": [{"key": ANNOTATION, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": room, "allocatable": room},
    }
