"""The plan of a job in Docker Compose: a Compose document with one service a node. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from stackctl.jobs import serving
from stackctl.jobs.job import INIT, STOP_MARGIN, Job, contract, launcher
from stackrt.contract import PORT

TOKEN = "${STACK_TOKEN:?}"  # noqa: S105 - Compose fills it in
"""The run's secret comes from the environment of `docker compose`; it stands in no file."""

HEALTHCHECK = {
    # Healthy means: this node's ranks have started.
    "test": ["CMD-SHELL", 'ls "$$STACK_OUT"/logs/attempt-*/rank-*.log >/dev/null 2>&1'],
    "interval": "30s",
    "timeout": "5s",
    "start_period": "60s",
}


Document = dict[str, Any]


class Mount(msgspec.Struct, frozen=True):
    """A folder of the host, by its absolute path, in every node."""

    source: str
    target: str
    read_only: bool = False

    @property
    def entry(self) -> dict[str, Any]:
        """Compose's long form: the short one takes a colon for its separator, and makes missing folders as root."""
        row = {"type": "bind", "source": _literal(self.source), "target": self.target}
        return {**row, "read_only": self.read_only, "bind": {"create_host_path": False}}


DATA = "/data"
"""Where in the containers fetched data sets are."""


def mounts(job: Job, *, out: str, workdir: str, data: str = "") -> tuple[Mount, ...]:
    """What every node sees: the run's folder, the caller's working folder, and fetched data sets if there are any.

    A reference workload only reads in the working folder (`--data my.txt`); the user's own command may write.
    """
    sets = (Mount(data, DATA, read_only=True),) if data else ()
    return Mount(out, "/out"), Mount(workdir, "/workspace", read_only=bool(job.workload)), *sets


def document(
    job: Job,
    *,
    image: str,
    user: str,
    volumes: Sequence[str | Mount],
    token: str = TOKEN,
    out: str = "/out",
    attempt: int = 1,
    gpus: Sequence[str] = (),
    more: Mapping[str, str] = MappingProxyType({}),
) -> Document:
    """The Compose document of a job.

    Args:
        image: The image's full name.
        out: Where in the containers the outputs go.
        user: `uid:gid` that the ranks run as and that their outputs belong to.
        volumes: Folders for outputs (at /out) and code (at /workspace); a string is taken as Compose's short form.
        gpus: Ids of the GPUs to deal out to the nodes, at least nodes x GPUs of them.
        token: An expression that Compose fills in from its environment; never the token itself.
        more: What else is in the nodes' environment.
    """
    return {
        "name": job.name,
        "services": {
            f"node-{node}": _service(job, node, image, user, volumes, token, out, attempt, gpus, more)
            for node in range(job.nodes)
        },
    }


def published(made: Document, port: int, reads: Mapping[str, str]) -> Document:
    """The document of a service: this machine's programs reach it, and it sees its model.

    Args:
        port: Of this machine, on its loopback interface alone.
        reads: Files and folders of the host, by absolute paths, and where the service sees them.
    """
    ((name, row),) = made["services"].items()
    more = [Mount(source, target, read_only=True).entry for source, target in reads.items()]
    # Beside its model a service needs nothing of this machine but the folder for its logs.
    volumes = [volume for volume in row["volumes"] if volume["target"] != "/workspace"]
    address = f"http://127.0.0.1:{serving.PORT}{serving.SERVERS['stack'].ready}"
    ask = ["CMD", "python", "-c", f"import urllib.request as u; u.urlopen({address!r}, timeout=3)"]
    service = {
        **row,
        "volumes": [*volumes, *more],
        "ports": [f"127.0.0.1:{port}:{serving.PORT}"],
        "healthcheck": {"test": ask, "interval": "5s", "timeout": "5s", "start_period": "60s"},
    }
    return {**made, "services": {name: service}}


def _service(
    job: Job,
    node: int,
    image: str,
    user: str,
    volumes: Sequence[str | Mount],
    token: str,
    out: str,
    attempt: int,
    gpus: Sequence[str],
    more: Mapping[str, str],
) -> dict[str, Any]:
    """One node of a job as a Compose service."""
    given = contract(job, node, rendezvous=f"node-0:{PORT}", out=out, attempt=attempt)
    environment = {key: _literal(value) for key, value in {**given, **more}.items()}
    row: dict[str, Any] = {
        "image": image,
        "hostname": f"node-{node}",
        "entrypoint": list(INIT),
        "command": [_literal(word) for word in launcher("python", job)],
        "environment": {**environment, "STACK_TOKEN": token},
        "user": user,
        "working_dir": "/workspace",
        "volumes": [volume if isinstance(volume, str) else volume.entry for volume in volumes],
        "shm_size": "1gb",
        "stop_grace_period": f"{job.grace + STOP_MARGIN}s",
        "restart": "no",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "healthcheck": HEALTHCHECK,
    }
    if job.gpus:
        first = node * job.gpus
        row["ulimits"] = {"memlock": -1}
        row["deploy"] = {"resources": {"reservations": {"devices": [_devices(gpus[first : first + job.gpus])]}}}
    return row


def _devices(gpus: Sequence[str]) -> dict[str, Any]:
    return {"driver": "nvidia", "device_ids": list(gpus), "capabilities": ["gpu"]}


def _literal(text: str) -> str:
    """Compose fills in `$NAME`; a doubled dollar sign is one that it leaves alone."""
    return text.replace("$", "$$")
