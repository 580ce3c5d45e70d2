"""Nodes as processes on this machine."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl import assets
from stackctl.engines import local as engine
from stackctl.errors import InvalidInput, MissingHere
from stackctl.jobs import local, workloads
from stackctl.jobs.job import Job
from stackctl.runs.backends.base import Foreground, Request
from stackctl.runs.handle import RunHandle, Tell, Told
from stackctl.runs.store import Record, now
from stackrt.contract import PORT

if TYPE_CHECKING:
    from stackctl.runs.reach import Inside


class Local(Foreground):
    """Processes on this machine, a launcher a node."""

    where = "processes"

    def plan(self, asked: Request, tell: Tell) -> Told:
        """The nodes' command lines, with a port that is free now."""
        job = asked.job
        gpus = engine.gpu_ids(job.nodes * job.gpus, check=False)
        with nullcontext(asked.port) if asked.port else engine.reserved_port(None, PORT) as port:
            nodes = local.plan(job, python=sys.executable, out=str(asked.folder), port=port, gpus=gpus)
        return Told(local.show(nodes), nodes)

    def start(self, asked: Request, tell: Tell) -> RunHandle:
        """Run the job until its end.

        Raises:
            InvalidInput: There is no such command.
            MissingHere: The workload's packages, the GPUs or the port are not here.
            NameTaken: The folder holds a run.
        """
        from stackctl import assets  # which a dry run does not need
        from stackctl.runs.backends.foreground import announcement, claimed, new_token, recorded

        job, folder, workdir = asked.job, asked.folder, asked.workdir
        env = engine.environment(job.command[0] if not job.workload else "", tell)
        _need_packages(job)
        if not engine.has_program(job.command[0], job.env.get("PATH", env["PATH"]), workdir):
            raise _no_program(job.command[0], workdir)
        gpus = engine.gpu_ids(job.nodes * job.gpus)
        env |= {"PWD": str(workdir), "STACK_TOKEN": new_token()}
        with (
            engine.reserved_port(asked.port, PORT) as port,
            claimed(folder, job, resume=asked.resume) as (attempt, hold),
        ):
            tell(announcement(job, self.where, folder))
            paths = [env.get("PYTHONPATH"), str(assets.payload_path(folder))]
            env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
            nodes = local.plan(job, python=sys.executable, out=str(folder), port=port, attempt=attempt, gpus=gpus)
            commands = [engine.Command(node.argv, {**env, **node.env}) for node in nodes]
            begun = Record(
                name=job.name, backend="local", attempt=attempt, started=now(), workdir=str(workdir),
                publish=asked.publish, token_file=asked.token_file,
            )  # fmt: skip
            with recorded(begun, folder, tell) as ended:
                # The launchers hold the folder as well: if we are killed, the run goes on until they have ended.
                codes = engine.run(commands, cwd=workdir, to_stderr=asked.quiet, into=asked.into, keep=[hold])
                record = ended([128 - code if code < 0 else code for code in codes])
        return self.stored(folder, record, tell, job)

    def inside(self, folder: Path, name: str) -> Inside:
        """The way into a run's processes."""
        from stackctl.runs.reach import Processes

        return Processes(folder)


_IN_IMAGES = ("tensorflow", "tf_keras", "horovod")
"""What workloads need, and no lock of ours installs beside stackctl."""


def _no_program(name: str, workdir: Path) -> InvalidInput:
    """What is wrong with a command that starts nothing; torchrun takes a script in the place of a program."""
    if not (workdir / name).is_file():
        return InvalidInput(f"there is no program {name!r} here", hint="check the command behind `--`")
    program = "python" if name.endswith(".py") else "sh"
    hint = f"name the program that runs it, as in `-- {program} {name}`"
    return InvalidInput(f"{name!r} is a file here, and no program", hint=hint)


def _need_packages(job: Job) -> None:
    if not job.workload:
        return
    missing = [name for name in workloads.find(job.workload).needs if not engine.has_module(name)]
    if missing:
        others = [name for name in missing if name in _IN_IMAGES]
        source = "`make train-env`" if assets.in_checkout() else "stackctl's extra `train`"
        hint = f"install them with {source}, or use the image with `--on compose`"
        if others:
            hint = f"use the image with `--on compose`; {source} does not bring {', '.join(others)}"
        raise MissingHere(
            f"the workload {job.workload!r} needs {', '.join(missing)}, not installed beside stackctl", hint=hint
        )
