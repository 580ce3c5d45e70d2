"""What a service is: a model, the server that answers for it, and how a node of it is started. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from stackctl.errors import InvalidInput, did_you_mean
from stackctl.jobs import job as jobs
from stackctl.jobs.job import Job

WORKLOAD = "serve"
PORT = 8000
MODEL = "/model"
"""Where a container has the model, or the claim that it is on."""
TOKEN = "/run/stack/token"  # noqa: S105 - a path
DRAIN, GRACE = 5, 30
"""Seconds in which a server that is asked to end still takes requests, and in which its answers may end."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A program that serves models, in an image.

    `command` is filled in with `{model}`, `{name}` and `{port}`. `ready` and `live` are paths that it answers with 200
    once it can take requests, and as long as it is well. `reads` says what kind of folder it wants.
    """

    command: tuple[str, ...]
    image: str
    port: int = PORT
    ready: str = "/health/ready"
    live: str = "/health/live"
    gpus: int = 0
    reads: str = ""
    env: dict[str, str] = {}

    def words(self, model: str, name: str) -> tuple[str, ...]:
        """Its command line."""
        return tuple(word.format(model=model, name=name, port=self.port) for word in self.command)


SERVERS = {
    "stack": Server(
        command=("python", "-P", "-m", "stackrt.serve", "{model}", "--name", "{name}", "--host", "0.0.0.0",  # noqa: S104
                 "--port", "{port}", "--drain", str(DRAIN), "--grace", str(GRACE)),
        image="serve",
        reads="a Hugging Face folder or a .keras file",
    ),
    "tf-serving": Server(
        command=("/usr/bin/tensorflow_model_server", "--rest_api_port={port}", "--port=8500", "--model_name={name}",
                 "--model_base_path={model}", "--rest_api_timeout_in_ms=30000"),
        image="tensorflow/serving:2.19.1",
        port=8501,
        ready="/v1/models/{name}",
        live="/v1/models/{name}",
        reads="a folder of versions, 1/saved_model.pb and so on",
    ),
    "vllm": Server(
        command=("vllm", "serve", "{model}", "--served-model-name", "{name}", "--host", "0.0.0.0",  # noqa: S104
                 "--port", "{port}"),
        image="vllm/vllm-openai:v0.11.0",
        ready="/health",
        live="/health",
        gpus=1,
        reads="a Hugging Face folder",
        # Any user may run it: what it writes goes where that is allowed, and PyTorch's cache wants its user's name.
        env={"HOME": "/tmp", "USER": "vllm", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},  # noqa: S108
    ),
}  # fmt: skip
"""Every server by the name that --engine gives it."""


def server(engine: str) -> Server:
    """A server by its name.

    Raises:
        InvalidInput: There is none.
    """
    if engine not in SERVERS:
        raise InvalidInput(f"no engine is named {engine!r}", where="--engine", hint=did_you_mean(engine, SERVERS))
    return SERVERS[engine]


def model_name(name: str) -> str:
    """See that a model's name can stand in addresses.

    Raises:
        InvalidInput: It cannot.
    """
    if not _NAME.fullmatch(name):
        said = "a model's name has letters, digits, dots, dashes and underscores, 63 at most"
        raise InvalidInput(said, where=f"--model-name {name}")
    return name


def is_service(run: Job) -> bool:
    """Whether a job is a server of models: it goes on until it is ended, and has no checkpoints."""
    return run.workload == WORKLOAD


def job(
    name: str, model: str, served: str, *, host: str, port: int, more: Sequence[str] = (), gpus: int = 0,
    image: str | None = None,
) -> Job:  # fmt: skip
    """A service of this stack's own server as a job of one node and one rank.

    Args:
        model: Where the server has the model.
        served: The model's name in requests.
        host: The address that it listens on.
        port: Its port.
        more: More options of the server.
    """
    arguments = [model, "--name", served, "--host", host, "--port", str(port), *more]
    return jobs.make(
        name=name, workload=WORKLOAD, arguments=arguments, image=image, gpus=gpus, grace=DRAIN + GRACE,
        device=None if gpus else "cpu",
    )  # fmt: skip


def elsewhere(
    engine: str, model: str, served: str, *, name: str, port: int, image: str | None, gpus: int
) -> dict[str, Any]:
    """The Compose document of another server.

    Args:
        model: The model's folder on this machine.
        served: The model's name in requests.
        port: Of this machine.
    """
    row = server(engine)
    mount = {"type": "bind", "source": model.replace("$", "$$"), "target": MODEL, "read_only": True,
             "bind": {"create_host_path": False}}  # fmt: skip
    service: dict[str, Any] = {
        "image": image or row.image,
        "entrypoint": [],
        "command": [word.replace("$", "$$") for word in row.words(MODEL, served)],
        "environment": dict(row.env),
        "ports": [f"127.0.0.1:{port}:{row.port}"],
        "volumes": [mount],
        "shm_size": "1gb",
        "stop_grace_period": f"{DRAIN + GRACE}s",
        "restart": "unless-stopped",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    if gpus or row.gpus:
        devices = {"driver": "nvidia", "count": gpus or row.gpus, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [devices]}}}
    return {"name": name, "services": {"serve": service}}
