"""Who holds what a run waits for: the pods that have a place. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stackctl.jobs import quantity
from stackctl.jobs.kubernetes import RUN_LABEL
from stackctl.runs import feasibility

PLACED = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
"""Selects pods that hold something."""

SHOWN = 5
"""Holders that a sentence names."""


class Metadata(msgspec.Struct, frozen=True):
    """Whose a pod is."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}


class Placed(msgspec.Struct, frozen=True):
    """A pod that has a node, and what it asks for there."""

    metadata: Metadata
    spec: feasibility.PodSpec


def told(pods: Sequence[Placed], run: str, namespace: str, resources: Sequence[str]) -> str:
    """Who holds some resources, this run first, then who has most.

    As `it holds 8 nvidia.com/gpu on node-0, large holds 8 nvidia.com/gpu on node-1`.
    """
    found: list[tuple[bool, float, str]] = []
    for resource in resources:
        held: dict[str, dict[str, float]] = {}
        for pod in pods:
            amount = feasibility.asked(pod.spec, resource)
            if amount:
                nodes = held.setdefault(_holder(pod, run, namespace), {})
                nodes[pod.spec.node_name] = nodes.get(pod.spec.node_name, 0.0) + amount
        for holder, nodes in held.items():
            total = sum(nodes.values())
            where = ", ".join(sorted(nodes)[:SHOWN]) + (", …" if len(nodes) > SHOWN else "")
            found.append((holder != _SELF, -total, f"{holder} holds {quantity.show(total)} {resource} on {where}"))
    lines = [line for _, _, line in sorted(found)]
    return "; ".join(lines[:SHOWN]) + (f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else "")


_SELF = "it"


def _holder(pod: Placed, run: str, namespace: str) -> str:
    """A run by its name, with its namespace where that is another; any other pod by its own name."""
    name = pod.metadata.labels.get(RUN_LABEL, "")
    mine = pod.metadata.namespace == namespace
    if mine and name == run:
        return _SELF
    shown = name or f"the pod {pod.metadata.name}"
    return shown if mine else f"{shown} of namespace {pod.metadata.namespace}"
