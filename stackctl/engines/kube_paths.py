"""Where an API server has its objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

_GROUPS = {
    "Deployment": "apis/apps/v1",
    "HorizontalPodAutoscaler": "apis/autoscaling/v2",
    "Job": "apis/batch/v1",
    "NetworkPolicy": "apis/networking.k8s.io/v1",
    "PodDisruptionBudget": "apis/policy/v1",
    "PriorityClass": "apis/scheduling.k8s.io/v1",
    "RuntimeClass": "apis/node.k8s.io/v1",
    "SelfSubjectAccessReview": "apis/authorization.k8s.io/v1",
}
_PLURALS = {"NetworkPolicy": "networkpolicies", "PriorityClass": "priorityclasses", "RuntimeClass": "runtimeclasses"}
_CLUSTER_WIDE = ("Node", "Namespace", "PriorityClass", "RuntimeClass", "SelfSubjectAccessReview")


def address(kind: str, namespace: str = "", name: str = "", part: str = "") -> str:
    """The path of an object, a collection, or a part of an object (`log`).

    Args:
        kind: As `Job`; of a kind that not every cluster serves, and of any, with group and version: `batch/v1/Job`.
    """
    api, _, kind = kind.rpartition("/")
    root = f"{'apis' if '/' in api else 'api'}/{api}" if api else _GROUPS.get(kind, "api/v1")
    plural = _PLURALS.get(kind, kind.lower() + "s")
    scope = f"namespaces/{quote(namespace)}/" if namespace and kind not in _CLUSTER_WIDE else ""
    return f"{root}/{scope}{plural}" + (f"/{quote(name)}" if name else "") + (f"/{part}" if part else "")


def kind_of(row: Mapping[str, Any]) -> str:
    """The kind of an object, or of what a reference names, as `address` takes it."""
    whole = f"{row['apiVersion']}/{row['kind']}"
    return str(row["kind"]) if address(row["kind"]) == address(whole) else whole
