"""Simulated nodes: kwok plays their kubelets, so that a thousand fit on one machine."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.harness import programs

ANNOTATION = "kwok.x-k8s.io/node"
STAGES = ("pod-ready", "pod-delete")
"""How its pods behave: they run at once, until they are deleted. Its nodes stay as they were made."""

IMAGES = [
    {"names": [f"registry.example/team/image-{number}@sha256:{number:064}"], "sizeBytes": 10**9} for number in range(50)
]
"""A kubelet tells of 50 images; they make most of a Node object's size."""


def command(kubeconfig: Path, server: str) -> list[str]:
    """The command line of kwok: it manages the nodes with our annotation, and no other."""
    stage = programs.folder("kwok") / "stage"
    return [
        programs.program("kwok"),
        f"--kubeconfig={kubeconfig}",
        f"--master={server}",
        f"--manage-nodes-with-annotation-selector={ANNOTATION}=fake",
        "--node-lease-duration-seconds=0",
        *(f"--config={stage / 'pod' / 'fast' / name}.yaml" for name in STAGES),
    ]


def node(name: str, gpus: int) -> dict[str, object]:
    """A simulated node's object. It is ready."""
    room = {"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": str(gpus)}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": {ANNOTATION: "fake"}, "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": room, "allocatable": room, "conditions": [ready], "images": IMAGES},
    }
