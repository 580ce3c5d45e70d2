"""What every backend does, and what it is asked."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stackctl.jobs.gang import AUTO
from stackctl.jobs.job import Job
from stackctl.jobs.pod_options import PodOptions
from stackctl.jobs.via import JOB
from stackctl.runs import store
from stackctl.runs.handle import NoSuchRun, RunHandle, Tell, Told
from stackctl.runs.store import Record

if TYPE_CHECKING:  # a dry run needs none
    from stackctl.runs.reach import Inside
    from stackctl.runs.stored import StoredRun


class ClusterOptions(PodOptions, frozen=True, kw_only=True):
    """What a person may ask of a cluster beside the job: `jobs.placement.place` checks it.

    `code` is a folder to ship, with `code_all` also what git does not track there, and `code_claim` the claim that
    takes it. `profile` is a cluster's profile or a TOML file, and `via` what gives the job to the cluster. `gang` is
    whether the cluster places its nodes all at once, one of `jobs.gang.WISHES`. Without `preflight` nothing is checked
    before, and of its checks those of `skip_check` are left out.
    """

    namespace: str | None = None
    context: str | None = None
    profile: str = "generic"
    cpu: str | None = None
    cpu_limit: str | None = None
    memory: str | None = None
    ephemeral_storage: str | None = None
    shm: str | None = None
    queue: str | None = None
    topology: str | None = None
    priority: str | None = None
    via: str = JOB
    gang: str = AUTO
    volumes: tuple[str, ...] = ()
    secret_env: tuple[str, ...] = ()
    retries: int = 3
    code: Path | None = None
    code_all: bool = False
    code_claim: str | None = None
    preflight: bool = True
    skip_check: tuple[str, ...] = ()


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A job to plan or to start; each backend takes of it what it knows.

    Args:
        folder: The run's folder.
        workdir: The folder that it is started in.
        port: Of node 0's launcher; None for the first free one.
        resume: Go on with the run that the folder holds.
        quiet: Send the ranks' output to standard error.
        into: A descriptor for all that nodes print, in place of our own streams.
        publish: Of a service: the port of this machine at which it is reached.
        token_file: Of a service: the file with the token that its clients send.
        reads: Of a service: what its containers see of this machine, and where.
    """

    job: Job
    folder: Path
    workdir: Path = Path()
    port: int | None = None
    resume: bool = False
    quiet: bool = False
    into: int | None = None
    publish: int = 0
    token_file: str = ""
    reads: dict[str, str] = {}
    cluster: ClusterOptions = ClusterOptions()


class Where(msgspec.Struct, frozen=True):
    """The cluster and namespace that a person has named; None for what the kubeconfig says.

    `everywhere` is for lists: all namespaces, whatever is named.
    """

    namespace: str | None = None
    context: str | None = None
    everywhere: bool = False

    @property
    def named(self) -> bool:
        """Whether there is any."""
        return bool(self.namespace or self.context or self.everywhere)


class Backend(ABC):
    """A place where jobs run."""

    @abstractmethod
    def plan(self, asked: Request, tell: Tell) -> Told:
        """What would be started. Starts and makes nothing.

        Raises:
            InvalidInput: The job cannot run there.
        """

    @abstractmethod
    def start(self, asked: Request, tell: Tell) -> RunHandle:
        """Start a job, and write it down in its folder.

        Raises:
            InvalidInput: The job cannot run there.
            MissingHere: Something that it needs is not there.
            NameTaken: The folder, or the place, has a run of this name.
        """

    @abstractmethod
    def watch(self, name: str, record: Record | None, where: Where, tell: Tell) -> RunHandle:
        """The handle of a run.

        Args:
            record: Its record, if it is in the store.

        Raises:
            NoSuchRun: There is none of this name.
        """

    @abstractmethod
    def runs(self, mine: Sequence[Record], where: Where, tell: Tell) -> list[Record]:
        """Its runs as they are now: all of the store's, `mine`, and what is known of others'."""


class Foreground(Backend):
    """A backend of this machine: `start` stays with the run until its end."""

    where: str
    """What a run's nodes are, in a person's words: `processes`."""

    def goes_on(self, folder: Path, name: str) -> bool:
        """Whether anything of a run still runs: its launchers hold the folder as their stackctl does."""
        from stackctl.engines.file_lock import is_held

        return is_held(folder)

    def end(self, folder: Path, name: str) -> bool:
        """End and remove what goes on of a run whose stackctl has gone; False where there is nothing, or it has not."""
        return False

    def stored(self, folder: Path, record: Record, tell: Tell, job: Job | None = None) -> StoredRun:
        """The handle of a run by its folder."""
        from stackctl.runs.stored import StoredRun

        goes_on, end = (partial(ask, folder, record.name) for ask in (self.goes_on, self.end))
        inside = self.inside(folder, record.name)
        return StoredRun(folder, record, tell, where=self.where, goes_on=goes_on, end=end, job=job, inside=inside)

    def inside(self, folder: Path, name: str) -> Inside | None:
        """The way into a run's nodes, for `exec`, `shell` and `forward`; None if there is none."""
        return None

    def watch(self, name: str, record: Record | None, where: Where, tell: Tell) -> RunHandle:
        """The handle of a run by its folder in the store."""
        if record is None:
            raise NoSuchRun(f"there is no run named {name}", hint="`stackctl list` shows the runs")
        return self.stored(store.home(os.environ) / name, record, tell)

    def runs(self, mine: Sequence[Record], where: Where, tell: Tell) -> list[Record]:
        """The store's, put right."""
        home = store.home(os.environ)
        return [self.stored(home / record.name, record, tell).settle() for record in mine]


def image_of(job: Job) -> str:
    """The full name of a job's image: of the catalog's, in the variant that fits; another name stays as it is."""
    return variant_of(job.image, gpus=bool(job.gpus and job.device != "cpu"))


def variant_of(image: str, *, gpus: bool) -> str:
    """The full name of an image of the catalog, for CPUs or for GPUs; another name stays as it is."""
    from stackctl.images import catalog

    rows = catalog.load()
    if image not in rows.images:
        return image
    return catalog.targets(rows, image, "cuda" if gpus else "cpu", catalog.prefix_of(os.environ))[0].tag
