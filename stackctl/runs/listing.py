"""Every run of a namespace in one request, as a table that the cluster makes: small, however many runs there are."""

from __future__ import annotations

from stackctl.engines.kube import Cluster, address
from stackctl.jobs.kubernetes import SELECTOR

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"

_STATES = {"Complete": "succeeded", "Failed": "failed", "Suspended": "queued", "Terminating": "stopped"}


def states(context: str, namespace: str) -> dict[str, tuple[str, str]]:
    """Name -> state, and when it was submitted (UTC, ISO 8601).

    Raises:
        ApiError: The cluster does not answer, or does not allow it.
    """
    query = {"labelSelector": SELECTOR, "includeObject": "Metadata"}
    table = Cluster(context).read(address("Job", namespace), accept=_TABLE, **query)
    names = [column["name"] for column in table["columnDefinitions"]]
    found: dict[str, tuple[str, str]] = {}
    for row in table["rows"]:
        metadata, cells = row["object"]["metadata"], dict(zip(names, map(str, row["cells"]), strict=True))
        done, _, all_nodes = cells.get("Completions", "").partition("/")
        said = cells.get("Status") or ("Complete" if done == all_nodes else "")  # no such column before 1.30
        created = metadata["creationTimestamp"].replace("Z", "+00:00")
        found[metadata["name"]] = _STATES.get(said, "running"), created
    return found
