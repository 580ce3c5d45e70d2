"""`run`, `submit` and `find` in Python. They print nothing: what is worth telling goes to the logger `stackctl`."""

from __future__ import annotations

import html
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from stackctl.api.answers import Explanation, Outcome, Status, outcome_of, status_of
from stackctl.api.job import Job, as_arguments, checked, made
from stackctl.errors import InvalidInput, NameTaken, StackError
from stackctl.runs import backends, known, store
from stackctl.runs.backends.base import ClusterOptions, Request, Where
from stackctl.runs.handle import Lines, RunHandle

_log = logging.getLogger("stackctl")

_PLACES = tuple(name for name, row in backends.BACKENDS.items() if row.run)


class Run:
    """A run, wherever it is: what `run`, `submit` and `find` return. Each method looks anew at how it fares."""

    def __init__(self, handle: RunHandle) -> None:
        self._handle = handle

    @property
    def name(self) -> str:
        """The run's name."""
        return self._handle.name

    def status(self) -> Status:
        """How it fares.

        Raises:
            StackError: The cluster does not answer, or has it no more.
        """
        return status_of(self.name, self._handle.status())

    def explain(self) -> Explanation:
        """Why it waits or has failed.

        Raises:
            StackError: As `status`.
        """
        told = self._handle.explain()
        data = msgspec.to_builtins(told.data)
        return Explanation(str(data.get("cause") or data.get("state")), told.text, data)

    def logs(
        self, *, rank: int | None = None, node: int | None = None, attempt: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """What its ranks print, each line behind its rank, as `[3] step 10`.

        Args:
            rank: Of this rank only.
            node: Of this node only.
            attempt: Of this attempt; by default the newest.
            follow: Go on until the run has ended, where it has not.

        Raises:
            InvalidInput: There is no such rank, node or attempt.
        """
        with as_arguments():
            for line in self._handle.logs(Lines(rank, node, attempt), follow=follow):
                yield line.decode(errors="replace")

    def wait(self, output: Callable[[str], object] | None = None, *, timeout: float | None = None) -> Outcome:
        """Wait for its end; a failure is an outcome, and `check` makes an exception of it.

        Args:
            output: Is given each line that the ranks print meanwhile.
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            InvalidInput: It runs on this machine, in another process.
            JobFailed: It was removed meanwhile.
            StillRunning: It goes on after that time; a `TimeoutError`, too.
        """

        def put(line: bytes) -> None:
            if output:
                output(line.decode(errors="replace"))

        return outcome_of(self._handle.wait(put if output else None, timeout))

    def cancel(self) -> str:
        """Stop it, and remove it where it runs; says what was done.

        Raises:
            InvalidInput: It runs on this machine: only who started it can.
        """
        return self._handle.cancel()

    @contextmanager
    def forward(self, port: int, *, rank: int = 0, local: int | None = 0) -> Iterator[str]:
        """Within the block, a port of a rank's node can be reached on this machine; gives the address, `host:port`.

        Args:
            port: The port there.
            rank: Of this rank's node.
            local: The port here; 0 for any that is free, None for the same.

        Raises:
            InvalidInput: There is no such rank, or the run does not run.
            MissingHere: The port here is in use.
            StackError: It is not allowed.
        """
        with self._handle.forward(rank, port, local=local) as forwarded:
            yield forwarded.address

    def __repr__(self) -> str:
        return f"<Run {self.name}>"

    def _repr_html_(self) -> str:
        """As a notebook shows it: how it fares now."""
        try:
            return self.status()._repr_html_()
        except StackError as error:
            return f"<div><b>{html.escape(self.name)}</b><pre>{html.escape(str(error))}</pre></div>"


def run(
    job: Job,
    *,
    on: Literal["local", "compose"] = "local",
    folder: str | os.PathLike[str] | None = None,
    output: Callable[[str], object] | None = None,
) -> Run:
    """Run a job on this machine, and return when it has ended; Ctrl-C stops it.

    Args:
        job: What to run; its ranks start in the current folder.
        on: As processes, or in containers of Compose, for which the image must be there.
        folder: The run's folder: logs, checkpoints and results. By default it is in the run store.
        output: Is given each line that is printed, from a thread of its own. Without it lines are in the logs alone.

    Returns:
        The run, also where it failed: `run(job).wait().check()` raises then.

    Raises:
        InvalidInput: The job cannot run, or this is not the main thread, which alone hears Ctrl-C.
        MissingHere: Something that it needs is not on this machine.
        NameTaken: There is a run of this name.
        Exception: What `output` raised, once the job has ended; `find` has the run.
    """
    if threading.current_thread() is not threading.main_thread():
        raise InvalidInput("a job is run in the main thread, as only that hears Ctrl-C", where="run")
    if on not in _PLACES:
        raise InvalidInput(f"must be {' or '.join(map(repr, _PLACES))}", where=f"on={on!r}")
    with as_arguments(), _taken(output) as into:
        while True:
            asked_job = made(job, _log.info, containers=backends.row(on).containers, for_cluster=False)
            place = Path(folder).absolute() if folder is not None else store.home(os.environ) / asked_job.name
            asked = Request(job=asked_job, folder=place, workdir=Path.cwd(), into=into)
            try:
                return Run(backends.load(on).start(asked, _log.info))
            except NameTaken:
                if job.name or folder is not None:
                    raise  # else another run has taken the name that was made up, within this second


def submit(job: Job, options: ClusterOptions | None = None) -> Run:
    """Submit a job to a Kubernetes cluster, and return at once.

    Inside a pod, without a kubeconfig, the pod's own service account is used.

    Args:
        job: What to run.
        options: Which cluster and namespace, and how pods are placed; what `stackctl submit` has options for.

    Raises:
        InvalidInput: The job cannot run as it was asked for.
        MissingHere: The cluster lacks what it needs: a permission, a claim, quota, room.
        NameTaken: The namespace has another job of this name.
        ApiError: The cluster refuses it, or does not answer.
    """
    with as_arguments():
        asked_job = made(job, _log.info, containers=True, for_cluster=True)
        asked = Request(
            job=asked_job, folder=store.home(os.environ) / asked_job.name, cluster=checked(options or ClusterOptions())
        )
        return Run(backends.load(backends.SHARED).start(asked, _log.info))


def find(name: str, *, namespace: str | None = None, context: str | None = None) -> Run:
    """A run by its name: of the run store, or of the cluster.

    Args:
        name: The run's name.
        namespace: Of the cluster; by default the kubeconfig's.
        context: Of the kubeconfig; by default the current one.

    Raises:
        NoSuchRun: There is none.
        StackError: The cluster cannot be asked.
    """
    return Run(known.find(name, Where(namespace, context), _log.info))


@contextmanager
def _taken(output: Callable[[str], object] | None) -> Iterator[int]:
    """Within the block, a descriptor; what is written to it is given out by lines, the last with the block's end."""
    if output is None:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
            yield nowhere.fileno()
        return
    heard, told = os.pipe()
    failed: list[BaseException] = []

    def read() -> None:
        with open(heard, "rb") as lines:  # noqa: PTH123 - of a descriptor
            for line in lines:
                if failed:  # read on, or the job would wait for it
                    continue
                try:
                    output(line.rstrip(b"\n").decode(errors="replace"))
                except BaseException as error:  # the caller's own: it gets it
                    failed.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield told
    finally:
        os.close(told)
        reader.join()
    if failed:
        raise failed[0]
