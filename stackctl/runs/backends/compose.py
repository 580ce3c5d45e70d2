"""Nodes as containers of Docker Compose on this machine. Engines are imported when used: a dry run needs none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.engines.local import gpu_ids
from stackctl.errors import MissingHere, NameTaken, StackError
from stackctl.jobs import compose, workloads
from stackctl.jobs.job import Job
from stackctl.jobs.yaml_text import to_yaml
from stackctl.runs import store
from stackctl.runs.backends.base import Foreground, Request, image_of
from stackctl.runs.handle import RunHandle, Tell, Told
from stackctl.runs.store import Record
from stackrt.pictures import known

if TYPE_CHECKING:
    from stackctl.engines.docker import ImageInfo
    from stackctl.runs.reach import Inside

ROOTLESS = "0:0"
"""The user that a rootless engine maps to the caller."""


class Compose(Foreground):
    """A container a node; the image must be in the engine's store."""

    where = "containers"

    def plan(self, asked: Request, tell: Tell) -> Told:
        """The Compose document."""
        uid, gid = store.container_user(asked.workdir)
        document = _document(asked, image_of(asked.job), f"{uid}:{gid}", attempt=1)
        return Told(to_yaml(document), document)

    def start(self, asked: Request, tell: Tell) -> RunHandle:
        """Run the job until its end. The ranks see the working folder as /workspace.

        Raises:
            MissingHere: There is no engine, no Compose, or no such image here.
            NameTaken: The folder holds a run, or there are containers of that name.
        """
        from stackctl.engines import compose as engine
        from stackctl.runs.backends.foreground import announcement, claimed, new_token, recorded

        job, folder, workdir = asked.job, asked.folder, asked.workdir
        image = image_of(job)
        info = _need(image, job.image)
        file = folder / "compose.yaml"
        if names := engine.others(job.name, file):
            raise engine.taken(job.name, names)
        with claimed(folder, job, resume=asked.resume) as (attempt, _):
            if asked.resume:
                _remove_left(file, job.name)
            user = _container_user(folder, workdir)
            tell(announcement(job, self.where, folder))
            if not job.workload and user != ROOTLESS:
                _tell_of(workdir, user, tell)
            file.touch(mode=store.PRIVATE)
            file.write_text(to_yaml(_document(asked, image, user, attempt)), encoding="utf-8")
            begun = Record(
                name=job.name,
                backend="compose",
                attempt=attempt,
                started=store.now(),
                image=info.id,
                workdir=str(workdir),
                publish=asked.publish,
                token_file=asked.token_file,
            )
            with recorded(begun, folder, tell) as ended:
                streams = (2 if asked.quiet else 1, 2) if asked.into is None else (asked.into, asked.into)
                record = ended(engine.run(file, job.name, {"STACK_TOKEN": new_token()}, streams))
        return self.stored(folder, record, tell, job)

    def inside(self, folder: Path, name: str) -> Inside:
        """The way into a run's containers."""
        from stackctl.runs.reach import Containers

        return Containers(name)

    def goes_on(self, folder: Path, name: str) -> bool:
        """Whether anything of a run still runs: containers do without their stackctl, or may if no engine answers."""
        from stackctl.engines import compose as engine

        try:
            return super().goes_on(folder, name) or bool(engine.own(name, folder / "compose.yaml", running=True))
        except StackError:
            return True

    def end(self, folder: Path, name: str) -> bool:
        """End and remove the containers of a run whose stackctl has gone."""
        from stackctl.engines import compose as engine

        file = folder / "compose.yaml"
        if super().goes_on(folder, name) or not engine.own(name, file):
            return False
        engine.end(file, name)
        return True


def _document(asked: Request, image: str, user: str, attempt: int) -> compose.Document:
    job = asked.job
    sets = _sets(job)
    volumes = compose.mounts(job, out=str(asked.folder), workdir=str(asked.workdir), data=sets)
    more = {known.FOLDER: compose.DATA} if sets else {}
    gpus = gpu_ids(job.nodes * job.gpus, check=False)  # Docker's own daemon knows better
    made = compose.document(job, image=image, user=user, volumes=volumes, attempt=attempt, gpus=gpus, more=more)
    return compose.published(made, asked.publish, asked.reads) if asked.publish else made


def _sets(job: Job) -> str:
    """The folder of fetched data sets, if the job may read some and there are any."""
    folder = known.folder(os.environ).absolute()
    reads = not job.workload or workloads.find(job.workload).data
    return str(folder) if reads and os.path.isdir(folder) else ""  # noqa: PTH112 - pathlib's raises where we may not look


def _need(image: str, name: str) -> ImageInfo:
    from stackctl.engines import docker

    docker.require("compose")
    info = docker.image(image)
    if info is None:
        build = f"build it: `stackctl build {name} --variant {image.rpartition(':')[2]}`"
        hint = f"get it with `docker pull {image}`" if image == name else build
        raise MissingHere(f"there is no image {image} here", hint=hint)
    return info


def _remove_left(file: Path, name: str) -> None:
    """Remove the ended containers of an attempt whose stackctl was killed; the run's folder is ours."""
    from stackctl.engines import compose as engine

    if not engine.own(name, file):
        return
    if engine.own(name, file, running=True):
        raise NameTaken("its containers still run", where=name, hint=f"end them first: stackctl cancel {name}")
    engine.end(file, name)


def _tell_of(workdir: Path, user: str, tell: Tell) -> None:
    """Tell what the containers' user may not do in the working folder."""
    who, own = f"note: containers run as uid {user.partition(':')[0]}, which cannot", store.container_user(workdir)
    if not store.can_read(workdir, own):
        tell(f"{who} read {workdir}: give it the folder first: chown -R {user} ., or chmod -R o+rX .")
    elif not store.can_write(workdir, own):
        tell(f"{who} write into {workdir}: save to $STACK_OUT, or give it the folder first: chown -R {user} .")


def _container_user(folder: Path, workdir: Path) -> str:
    """`uid:gid` for the containers: the caller's, so that outputs are the caller's own."""
    from stackctl.engines import docker

    if docker.is_rootless():
        return ROOTLESS
    uid, gid = store.container_user(workdir)
    if os.getuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, uid, gid, follow_symlinks=False)
    return f"{uid}:{gid}"
