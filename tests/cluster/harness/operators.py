"""JobSet and Kubeflow's Trainer beside a cluster: their kinds, webhooks and managers, all real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.harness import manager, programs
from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.harness.control_plane import QPS
from tests.cluster.harness.manager import Manager

JOBSET_PORT, JOBSET_HEALTH, TRAINER_PORT, TRAINER_HEALTH = 9543, 8181, 9643, 8281


@contextmanager
def running(cluster: OwnCluster) -> Iterator[None]:
    """Install both, and take them away again: Trainer makes JobSets."""
    jobset = Manager("jobset", "bases", _jobset, JOBSET_PORT, JOBSET_HEALTH)
    trainer = Manager("trainer", "crds", _trainer, TRAINER_PORT, TRAINER_HEALTH)
    with manager.running(cluster, jobset), manager.running(cluster, trainer):
        yield
        _clear(cluster)


def _jobset(cluster: OwnCluster, folder: Path) -> list[str]:
    about = {"apiVersion": "config.jobset.x-k8s.io/v1alpha1", "internalCertManagement": {"enable": False}}
    webhook = {"host": cluster.site.control_plane, "port": JOBSET_PORT, "certDir": str(folder)}
    path = _configured(cluster, folder, {**about, "webhook": webhook}, JOBSET_HEALTH)
    return [programs.program("jobset"), f"--config={path}", f"--kubeconfig={cluster.kubeconfig}"]


def _trainer(cluster: OwnCluster, folder: Path) -> list[str]:
    about = {"apiVersion": "config.trainer.kubeflow.org/v1alpha1", "certManagement": {"enable": False}}
    webhook = {"host": cluster.site.control_plane, "port": TRAINER_PORT}
    path = _configured(cluster, folder, {**about, "webhook": webhook}, TRAINER_HEALTH)
    # It looks for its certificate below the folder for temporary files, and no setting names another.
    place = folder / "k8s-webhook-server" / "serving-certs"
    place.parent.mkdir(exist_ok=True)
    if not place.exists():
        place.symlink_to(folder)
    program = programs.program("trainer-controller-manager")
    return ["env", f"TMPDIR={folder}", program, f"--config={path}", f"--kubeconfig={cluster.kubeconfig}"]


def _configured(cluster: OwnCluster, folder: Path, own: dict[str, Any], health: int) -> Path:
    config = {
        **own,
        "kind": "Configuration",
        "leaderElection": {"leaderElect": False},
        "health": {"healthProbeBindAddress": f"{cluster.site.control_plane}:{health}"},
        "metrics": {"bindAddress": "0"},
        "clientConnection": QPS,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def _clear(cluster: OwnCluster) -> None:
    """Remove what the managers must let go of."""
    kinds = "trainjobs.trainer.kubeflow.org,trainingruntimes.trainer.kubeflow.org,jobsets.jobset.x-k8s.io"
    cluster.kubectl("delete", kinds, "--all", "--all-namespaces", "--timeout=60s")
