"""Simulated nodes: kwok plays their kubelets, so that a thousand fit on one machine."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.harness import programs

ANNOTATION = "kwok.x-k8s.io/node"
LABEL = "stackctl.test/simulated"
STAGES = (
    "node/fast/node-initialize",
    "node/heartbeat-with-lease/node-heartbeat-with-lease",
    "pod/fast/pod-ready",
    "pod/fast/pod-delete",
)
"""How its nodes and pods behave: pods run at once, until they are deleted."""


def command(kubeconfig: Path, server: str) -> list[str]:
    """The command line of kwok: it manages the nodes with our annotation, and no other."""
    stage = programs.folder("kwok") / "stage"
    return [
        programs.program("kwok"),
        f"--kubeconfig={kubeconfig}",
        f"--master={server}",
        f"--manage-nodes-with-annotation-selector={ANNOTATION}=fake",
        "--node-lease-duration-seconds=40",
        *(f"--config={stage / name}.yaml" for name in STAGES),
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
            "labels": {"kubernetes.io/hostname": name, LABEL: "yes"},
        },
        "spec": {"taints": [{"key": ANNOTATION, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": room, "allocatable": room},
    }
