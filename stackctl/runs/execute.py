"""Carry out a job: make its folder, start its nodes, wait, record how it ended."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from stackctl import assets
from stackctl.engines import compose as compose_engine
from stackctl.engines import docker
from stackctl.engines import local as local_engine
from stackctl.engines.hold import held
from stackctl.errors import InvalidInput, MissingHere, NameTaken
from stackctl.jobs import compose as compose_plan
from stackctl.jobs import local as local_plan
from stackctl.jobs import workloads
from stackctl.jobs.job import Job
from stackctl.jobs.yaml_text import to_yaml
from stackctl.runs import store, summary
from stackctl.runs.states import State
from stackctl.runs.store import Record
from stackrt.launch.signals import STOPS


def local(
    job: Job, folder: Path, *, port: int, workdir: Path, resume: bool = False, quiet_stdout: bool = False
) -> Record:
    """Run a job as processes on this machine.

    Args:
        port: A free port for node 0's launcher.
        workdir: The ranks' working folder.
        quiet_stdout: Send the ranks' output to standard error.

    Raises:
        InvalidInput: There is no such command.
        MissingHere: The workload's packages, or the GPUs, are not here.
        NameTaken: The folder holds a run.
    """
    env = local_engine.environment(job.command[0] if not job.workload else "")
    _need_packages(job)
    if not local_engine.has_program(job.command[0], job.env.get("PATH", env["PATH"]), workdir):
        raise InvalidInput(f"there is no program {job.command[0]!r} here", hint="check the command behind `--`")
    gpus = local_engine.gpu_ids(job.nodes * job.gpus)
    env["PWD"] = str(workdir)
    env["STACK_TOKEN"] = secrets.token_hex(32)
    with claimed(folder, job, resume=resume) as (attempt, hold):
        _announce(job, "processes", folder)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(assets.payload_path(folder))]))
        nodes = local_plan.plan(
            job,
            python=sys.executable,
            out=str(folder),
            port=port,
            attempt=attempt,
            gpus=gpus,
        )
        commands = [local_engine.Command(node.argv, {**env, **node.env}) for node in nodes]
        begun = Record(name=job.name, backend="local", attempt=attempt, started=store.now(), workdir=str(workdir))
        with _recorded(begun, folder) as ended:
            # The launchers hold the folder as well: if we are killed, the run goes on until they have ended.
            codes = local_engine.run(commands, cwd=workdir, to_stderr=quiet_stdout, keep=[hold])
            return ended([128 - code if code < 0 else code for code in codes])


def compose(
    job: Job, folder: Path, *, image: str, workdir: Path, resume: bool = False, quiet_stdout: bool = False
) -> Record:
    """Run a job in Docker Compose, one container a node.

    Args:
        image: The image's full name; it must be in the engine's store.
        workdir: The folder that the ranks see as /workspace; read-only for a reference workload.

    Raises:
        MissingHere: There is no engine, no Compose, or no such image here.
        NameTaken: The folder holds a run, or there are containers of that name.
    """
    docker.require("compose")
    info = docker.image(image)
    if info is None:
        hint = f"get it with `docker pull {image}`" if image == job.image else f"build it: `stackctl build {job.image}`"
        raise MissingHere(f"there is no image {image} here", hint=hint)
    taken = compose_engine.containers(job.name)
    if taken:
        raise NameTaken(
            f"there are containers of a Compose project of this name: {', '.join(taken)}",
            where=f"--name {job.name}",
            hint=f"choose another, or remove them with `docker compose -p {job.name} down`",
        )
    with claimed(folder, job, resume=resume) as (attempt, _):
        user = _container_user(folder, workdir)
        _announce(job, "containers", folder)
        if not job.workload and user != ROOTLESS and not store.can_write(workdir, store.container_user(workdir)):
            print(f"note: containers run as uid {user.partition(':')[0]}, which cannot write into {workdir}: save to "
                  f"$STACK_OUT, or give it the folder first: chown -R {user} .", file=sys.stderr)  # fmt: skip
        volumes = compose_plan.mounts(job, out=str(folder), workdir=str(workdir))
        gpus = local_engine.gpu_ids(job.nodes * job.gpus, check=False)  # Docker's own daemon knows better
        document = compose_plan.document(job, image=image, user=user, volumes=volumes, attempt=attempt, gpus=gpus)
        file = folder / "compose.yaml"
        file.touch(mode=store.PRIVATE)
        file.write_text(to_yaml(document), encoding="utf-8")
        begun = Record(
            name=job.name,
            backend="compose",
            attempt=attempt,
            started=store.now(),
            image=info.id,
            workdir=str(workdir),
        )
        with _recorded(begun, folder) as ended:
            token = {"STACK_TOKEN": secrets.token_hex(32)}
            return ended(compose_engine.run(file, job.name, token, to_stderr=quiet_stdout))


@contextmanager
def claimed(folder: Path, job: Job, *, resume: bool) -> Iterator[tuple[int, int]]:
    """Take a run's folder as `store.create` does, and keep others from going on with the run within the block.

    Two that go on at once would write over each other's checkpoints. Gives the attempt, and the descriptor that
    holds the folder.

    Raises:
        NameTaken: As `store.create`, or the run is still going on.
    """

    def busy() -> None:
        raise NameTaken("this run is still going on", where=str(folder), hint="wait for its end, or stop it")

    if resume:
        with held(folder, busy) as hold:
            yield store.create(folder, job, resume=True), hold
    else:
        attempt = store.create(folder, job, resume=False)
        with held(folder, busy) as hold:
            yield attempt, hold


def _announce(job: Job, what: str, folder: Path) -> None:
    print(f"{job.name}: {summary.size(job)} as {what}, in {folder}", file=sys.stderr)


@contextmanager
def _recorded(begun: Record, folder: Path) -> Iterator[Callable[[Sequence[int]], Record]]:
    """Keep run.json true: running inside the block, then how it ended, also where the nodes could not be started.

    Where it cannot be written that is said; a job's outcome does not depend on it.
    """
    _write(folder, begun)
    final = msgspec.structs.replace(begun, state="failed")

    def ended(codes: Sequence[int]) -> Record:
        nonlocal final
        code = next((code for code in codes if code != 0), 0)
        # No failure.json, and a signal's code: the job was asked to end, and did.
        stopped = code in [128 + number for number in STOPS] and not (folder / "failure.json").exists()
        state: State = "succeeded" if code == 0 else "stopped" if stopped else "failed"
        final = msgspec.structs.replace(begun, state=state, exit_code=code, ended=store.now())
        return final

    try:
        yield ended
    except KeyboardInterrupt:
        final = msgspec.structs.replace(begun, state="stopped", exit_code=130)
        raise
    finally:
        with local_engine.undisturbed():
            _write(folder, msgspec.structs.replace(final, ended=final.ended or store.now()))


def _write(folder: Path, record: Record) -> None:
    try:
        store.write_json(folder / "run.json", record)
    except OSError as error:
        why = f"{folder / 'run.json'}: could not be written: {error.strerror}"
        print(f"note: {why}; what became of the run is told here only", file=sys.stderr)


def _need_packages(job: Job) -> None:
    if not job.workload:
        return
    missing = [name for name in workloads.find(job.workload).needs if not local_engine.has_module(name)]
    if missing:
        raise MissingHere(
            f"the workload {job.workload!r} needs {', '.join(missing)}, not installed beside stackctl",
            hint="install them with `make train-env` in a checkout, or use the image with `--on compose`",
        )


ROOTLESS = "0:0"
"""The user that a rootless engine maps to the caller."""


def _container_user(folder: Path, workdir: Path) -> str:
    """`uid:gid` for the containers: the caller's, so that outputs are the caller's own."""
    if docker.is_rootless():
        return ROOTLESS
    uid, gid = store.container_user(workdir)
    if os.getuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, uid, gid, follow_symlinks=False)
    return f"{uid}:{gid}"
