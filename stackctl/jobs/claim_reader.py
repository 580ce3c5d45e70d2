"""The plan of a pod beside a run that has its claim: to print what is kept there, or to put code there. Pure.

A Job and not a bare pod: whoever may submit may make one, and Kubernetes removes it, should nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence

from stackctl.jobs import mesh
from stackctl.jobs.job import INIT
from stackctl.jobs.kubernetes import CONTAINER, MANAGED, Manifest, confined, security
from stackctl.jobs.placement import OUT

SECONDS, KEPT = 120, 60
"""How long it may take, and how long it may stay when it is done."""

AMOUNTS = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
"""Said, since a quota may count them."""


def manifest(
    name: str,
    namespace: str,
    *,
    claim: str,
    image: str,
    command: Sequence[str],
    node_choice: Manifest,
    amounts: Manifest | None = None,
    writes: bool = False,
    seconds: int = SECONDS,
) -> Manifest:
    """The Job: one pod, which sees the claim.

    Args:
        node_choice: What it takes over from the run's own pods: where they could run, this one can.
        amounts: Its resources, where AMOUNTS would not be admitted.
        writes: It may write there.
        seconds: How long it may take.
    """
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [word.replace("$", "$$") for word in (*INIT, *command)],
        "resources": amounts or AMOUNTS,
        "securityContext": confined(),
        "volumeMounts": [{"name": "out", "mountPath": OUT, **({} if writes else {"readOnly": True})}],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security(),
        **node_choice,
        "containers": [container],
        "volumes": [{"name": "out", "persistentVolumeClaim": {"claimName": claim}}],
    }
    metadata = {"name": name, "namespace": namespace, "labels": MANAGED}
    spec = {"backoffLimit": 0, "activeDeadlineSeconds": seconds, "ttlSecondsAfterFinished": KEPT}
    template = {"metadata": {"labels": {**MANAGED, **mesh.LABELS}, "annotations": mesh.ANNOTATIONS}, "spec": pod}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {**spec, "template": template}}
