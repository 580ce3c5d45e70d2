"""A run, wherever it is: what a person may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from stackctl.errors import InvalidInput
from stackctl.jobs.job import Job
from stackctl.runs.states import State

Tell = Callable[[str], None]
"""Is given what a person should see meanwhile, apart from a run's own output."""


class NoSuchRun(InvalidInput):
    """There is no run of that name where it was looked for."""


class Told(msgspec.Struct, frozen=True):
    """An answer: for a person, and as what becomes JSON."""

    text: str
    data: object


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended: what it came to, or why it failed and what to do; and as what becomes JSON."""

    state: State
    text: str
    hint: str = ""
    exit_code: int | None = None
    data: object = None


class Lines(msgspec.Struct, frozen=True):
    """Which lines of a run's logs: of one rank, of one node, of one attempt; None for all, and the newest attempt."""

    rank: int | None = None
    node: int | None = None
    attempt: int | None = None

    def nodes(self, job: Job) -> set[int]:
        """The nodes that print them.

        Raises:
            InvalidInput: The job has no such rank or node, or the rank is on another node.
        """
        rank, node = self.rank, self.node
        for option, value, size in (("--rank", rank, job.world_size), ("--node", node, job.nodes)):
            if value is not None and not 0 <= value < size:
                raise InvalidInput(f"must be from 0 to {size - 1}", where=f"{option} {value}")
        if rank is not None and node is not None and rank // job.procs != node:
            raise InvalidInput(f"is on node {rank // job.procs}", where=f"--rank {rank} --node {node}")
        if rank is not None:
            return {rank // job.procs}
        return set(range(job.nodes)) if node is None else {node}


class Forwarded(msgspec.Struct, frozen=True):
    """A port of a rank that can be reached from here.

    `address` is where, as `127.0.0.1:6006`, and `text` says it to a person; `stay` returns when the run has ended, or
    at once where nothing has to stay for it.
    """

    address: str
    text: str
    stay: Callable[[], None]


class RunHandle(Protocol):
    """One run. Each method looks anew at how it fares, and writes down in the run store what it learns."""

    @property
    def name(self) -> str:
        """The run's name."""

    def status(self) -> Told:
        """How it fares."""

    def explain(self) -> Told:
        """Why it waits or has failed, with the evidence."""

    def logs(self, chosen: Lines, *, follow: bool = False) -> Iterator[bytes]:
        """What its ranks print, each line behind its rank.

        Args:
            follow: Go on until the run has ended, where it has not.

        Raises:
            InvalidInput: There are no such ranks or attempts, or none of their lines was kept.
        """

    def wait(self, put: Callable[[bytes], None] | None = None, seconds: float | None = None) -> Outcome:
        """Wait for its end.

        Args:
            put: Is given each line that the ranks print meanwhile.
            seconds: How long to wait; None for as long as it takes.

        Raises:
            InvalidInput: Another shell waits for it already.
            JobFailed: It was removed meanwhile.
            StillRunning: It goes on after that time.
        """

    def cancel(self) -> str:
        """Stop it, and remove it where it runs; says what was done.

        Raises:
            InvalidInput: Only the shell that started it can.
        """

    def execute(self, rank: int, command: Sequence[str] = (), *, tty: bool = False) -> int:
        """Run a command beside a rank: its environment, its working folder, our standard streams.

        Args:
            command: Without one it is a shell.
            tty: Give it a terminal, where we have one.

        Returns:
            The command's exit code; 127 where there is no such command, 3 where the rank has no process.

        Raises:
            InvalidInput: There is no such rank, or the run does not run.
            StackError: It is not allowed, or the connection broke off.
        """

    def forward(self, rank: int, port: int, *, local: int | None = None) -> AbstractContextManager[Forwarded]:
        """Within the block, a port of a rank's node can be reached on this machine.

        Args:
            local: Under which number; the same by default, 0 for any that is free.

        Raises:
            InvalidInput: There is no such rank, or the run does not run.
            MissingHere: The port of this machine is in use.
            StackError: It is not allowed, or there is no connection.
        """
