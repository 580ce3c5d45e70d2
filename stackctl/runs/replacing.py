"""A service of this machine goes over to another model while it runs, without a request that fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stackctl.errors import InvalidInput, JobFailed, MissingHere
from stackctl.jobs import serving, workloads
from stackctl.jobs.job import Job
from stackctl.runs import backends, store
from stackctl.runs import serving as services
from stackctl.runs.backends.base import Where
from stackctl.runs.handle import Tell, Told
from stackctl.runs.stored import StoredRun
from stackrt.serve import orders

COPIES = "models"
"""Within a service's folder: what its container has been given since it was started."""

_LOOK_SECONDS = 0.2


class Service(msgspec.Struct, frozen=True):
    """A service that runs here."""

    run: StoredRun
    job: Job

    @property
    def name(self) -> str:
        """Its name."""
        return self.run.name


def running(name: str, tell: Tell) -> Service | None:
    """The service of this machine that has a name and runs; None if there is none."""
    folder = store.home(os.environ) / name
    record = store.read_record(folder)
    if record is None or store.is_of_a_cluster(record):
        return None
    run = backends.load(record.backend).watch(name, record, Where(), tell)
    if not isinstance(run, StoredRun) or run.settle().state != "running" or not serving.is_service(run.job):
        return None
    return Service(run, run.job)


def replace(
    service: Service, model: services.Model, where: str, given: Mapping[str, Any], more: Sequence[str], tell: Tell
) -> Told:
    """Have it go over to a model, and wait until it has.

    Args:
        where: The backend that was named.
        given: The command line's options.
        more: Options of the server.

    Raises:
        InvalidInput: Something was asked for that belongs to the service and not to its model.
        JobFailed: The server refuses the model; the old one goes on.
    """
    record, folder = service.run.record, service.run.folder
    _only_the_model(service, where, given)
    contained = backends.row(where).containers
    copy = folder / COPIES / uuid.uuid4().hex[:8]
    place = f"{services.OUT}/{COPIES}/{copy.name}/{model.path.name}" if contained else None
    asked = services.request(
        model, name=service.name, where=where, port=record.publish, gpus=service.job.gpus, image=service.job.image,
        token=Path(record.token_file) if record.token_file else None, more=more, place=place,
    )  # fmt: skip
    if contained:
        _copy(model.path, copy, Path(record.workdir))
    try:
        tell(f"{service.name}: loads the model {model.name}; the one that it has answers until that is ready")
        _ordered(service, asked.job)
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    with contextlib.suppress(OSError):  # a record of what is so already
        store.write_json(folder / "job.json", asked.job, mode=store.PRIVATE)
    for other in (folder / COPIES).glob("*"):
        if other != copy:
            shutil.rmtree(other, ignore_errors=True)
    data = {"name": service.name, "model": model.name, "address": f"http://127.0.0.1:{record.publish}"}
    return Told(f"{service.name}: serves the model {model.name} at {data['address']}\n", data)


def _only_the_model(service: Service, where: str, given: Mapping[str, Any]) -> None:
    name, record = service.name, service.run.record
    anew = f"or end it with `stackctl cancel {name}`, and serve under another name"
    if record.backend != where:
        raise InvalidInput(
            f"{name} runs as {service.run.where}", where=f"--on {where}", hint=f"say --on {record.backend}, {anew}"
        )
    if not record.publish or "--orders" not in service.job.command:
        raise InvalidInput("was started by an older stackctl, which could not replace models", where=name, hint=anew)
    token = str(given["token_file"].absolute()) if given["token_file"] else ""
    for option, asked, has in (
        ("--port", given["port"], record.publish),
        ("--token-file", token, record.token_file or "none"),
        ("--gpus", given["gpus"], service.job.gpus),
        ("--image", given["image"], service.job.image),
    ):
        if asked and asked != has:
            said = f"belongs to the service and not to its model: {name} goes on with {has}"
            raise InvalidInput(said, where=f"{option} {asked}", hint=f"leave it out, {anew}")


def _copy(model: Path, into: Path, workdir: Path) -> None:
    """Give a container a model that it was not started with: it sees the run's folder."""
    try:
        into.mkdir(parents=True)
        if model.is_dir():
            shutil.copytree(model, into / model.name)
        else:
            shutil.copy2(model, into / model.name)
        _to_container([into.parent, into, *into.rglob("*")], workdir)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(into, ignore_errors=True)
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise MissingHere(f"the model cannot be copied for the container: {why}", where=str(into)) from None


def _to_container(paths: Sequence[Path], workdir: Path) -> None:
    if os.getuid() == 0:  # its processes run as another
        for path in paths:
            os.chown(path, *store.container_user(workdir))


def _ordered(service: Service, job: Job) -> None:
    """Give the order, and wait until it has been carried out."""
    file = service.run.folder / services.ORDERS
    words = job.command[len(workloads.find(serving.WORKLOAD).command) :]
    try:
        order = orders.give(file, words)
        _to_container([file], Path(service.run.record.workdir))
    except OSError as error:
        raise MissingHere(f"cannot be written: {error.strerror}", where=str(file)) from None
    while True:
        found = orders.answered(file, order)
        if found and found.state == "serving":
            return
        if found and found.state == "refused":
            raise JobFailed(f"{service.name}: {found.said}", hint="the model that it had goes on")
        if orders.given(file) != order:
            raise JobFailed(f"{service.name}: another model was asked for meanwhile")
        if service.run.settle().state != "running":
            raise JobFailed(f"{service.name}: has ended meanwhile", hint=f"`stackctl explain {service.name}` says why")
        time.sleep(_LOOK_SECONDS)
