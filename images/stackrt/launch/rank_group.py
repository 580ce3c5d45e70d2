"""This node's ranks: started, heard, signalled, reaped."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import BinaryIO

from stackrt.launch.errors import ConfigError
from stackrt.launch.guard import Guard
from stackrt.launch.loop import READ, Loop, Timer
from stackrt.launch.nccl import Network
from stackrt.launch.output import Console, Sink
from stackrt.launch.rank import Rank
from stackrt.launch.timing import FAILURE_GRACE

CHUNK = 65_536
"""Bytes read from one rank in one round of the loop, so that a flood starves nobody."""
PIPE_MOST = 1 << 20
"""The most bytes a pipe holds (Linux's default fs.pipe-max-size): what an ended rank can still have in flight."""
PIPE_PATIENCE = 0.5
"""Seconds after the last rank for which a pipe may stay open; then something that escaped its rank's group holds it."""
GROUP_POLL = 0.02
"""Seconds between looks at process groups that are asked to end."""
GIVE_UP = 5.0
"""Seconds after SIGKILL in which even a large process has gone."""


class Ranks:
    """All ranks of this node, from `start` until `on_ended`."""

    def __init__(self, loop: Loop, out: Sink, console: Console) -> None:
        self._loop, self._out, self._console = loop, out, console
        self._ranks: list[Rank] = []
        self._guard: Guard | None = None
        self._ending: int | None = None
        self._kill_timer: Timer | None = None
        self._pipes_since: float | None = None
        self._look: Timer | None = None
        self._paused = self.ended = False
        self.on_exit: Callable[[Rank], None] = lambda _: None
        """Called as each rank ends, with all its output read."""
        self.on_ended: Callable[[], None] = lambda: None
        """Called once, when no process of any rank is left."""
        out.on_room = self._resume

    @property
    def clean(self) -> bool:
        """Whether all ranks have ended with exit code 0."""
        return all(rank.code == 0 for rank in self._ranks)

    def start(
        self,
        command: Sequence[str],
        envs: Sequence[dict[str, str]],
        first: int,
        world: int,
        logs: Path,
        error_files: Sequence[Path],
        keep_to: Sequence[Collection[int]],
    ) -> None:
        """Start one process an environment, numbered from rank `first` of `world`.

        Args:
            error_files: where each may write the exception that ends it.
            keep_to: CPUs that each keeps to; none for all that are allowed.

        Raises:
            ConfigError: the command can't be started.
        """
        self._guard = Guard()
        width = len(str(world - 1)) if world > 10 else 1
        for local_rank, env in enumerate(envs):
            number = first + local_rank
            prefix = f"[{number:{width}}] ".encode()
            rank = Rank(number, local_rank, prefix, self._log(logs, number), error_files[local_rank])
            try:
                rank.spawn(command, env, keep_to[local_rank])
            except OSError as error:
                rank.close_log()
                why = error.strerror or str(error)
                raise ConfigError(f"{command[0]}: can't be started: {why}; check the command after --") from error
            self._ranks.append(rank)
            self._guard.add(rank.pid)
            self._listen(rank)

    def _log(self, logs: Path, number: int) -> BinaryIO | None:
        """Open a rank's log file. None where that can't be: a job does not fail for want of its log."""
        try:
            logs.mkdir(parents=True, exist_ok=True)
            return (logs / f"rank-{number}.log").open("wb", buffering=0)
        except OSError as error:
            self._console.say(f"rank {number}: no log file: {error.strerror}; the job goes on")
            return None

    def signal(self, number: int, grace: float) -> None:
        """Ask the ranks to end with a signal, and kill what is left after `grace` seconds."""
        if self.ended:
            return
        known, self._ending = self._ending == number, number
        for rank in self._ranks:
            if rank.code is None and not rank.dying and not known:
                rank.signalled = True
                # The rank alone: its data-loading workers must live while it writes a checkpoint.
                below = rank.shells_children()
                # A shell that passes the signal on by ending must not have its child hear of it twice.
                rank.group_signalled = rank.group_signalled or bool(below)
                rank.tell(number, [*below, rank.pid])
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = self._loop.after(grace, lambda: self._grace_is_over(grace))
        self._resume()
        self._settle()

    def running(self) -> list[Rank]:
        """Those that have not ended, with what they have printed so far read."""
        found = [rank for rank in self._ranks if rank.code is None]
        for rank in found:
            self._read_rest(rank)
        return found

    def network(self) -> Network | None:
        """Which network NCCL takes here, as soon as a rank has told."""
        return next((found for rank in self._ranks if (found := rank.lines.nccl.network)), None)

    def notify(self, number: int) -> None:
        """Pass a signal on that asks for no end."""
        for rank in self._ranks:
            if rank.code is None:
                rank.tell(number, [*rank.shells_children(), *([rank.pid] if rank.hears(number) else [])])

    def kill(self) -> None:
        """Kill every process of every rank now."""
        if self.ended:
            return
        self._ending = signal.SIGKILL
        for rank in self._ranks:
            if rank.code is None and not rank.dying:
                rank.signalled = rank.killed = True
            self._signal_group(rank, signal.SIGKILL)
            rank.group_signalled = True
        self._give_up_later()
        self._resume()
        self._settle()

    def _grace_is_over(self, grace: float) -> None:
        late = [str(rank.rank) for rank in self._ranks if rank.code is None]
        # After a failure, ranks that hang in a collective are no news.
        if late and grace > FAILURE_GRACE:
            self._console.say(f"rank {', '.join(late)} did not end within {grace:g} s: killing")
        self.kill()

    def reap(self) -> None:
        """Collect ended children; call on SIGCHLD."""
        ended: list[Rank] = []
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = found
                for rank in self._ranks:
                    if rank.pid == pid:
                        rank.ended(status)
                        ended.append(rank)
        # Only now: a callback signals the others, and those that have ended by themselves must not count as signalled.
        for rank in ended:
            self._signal_group(rank, 0)  # if nothing is left of it, its number may be another's before the job ends
            self._read_rest(rank)
            self.on_exit(rank)
        if ended:
            self._settle()

    def _listen(self, rank: Rank) -> None:
        self._loop.watch(rank.pipe, READ, lambda: self._read(rank))

    def _read(self, rank: Rank) -> int:
        """Move one chunk of output on; return its size, 0 at the end or when there is none now."""
        try:
            data = os.read(rank.pipe, CHUNK)
        except BlockingIOError:
            return 0
        if data:
            try:
                rank.write_log(data)
            except OSError as error:
                self._console.say(f"rank {rank.rank}: no log file any more: {error.strerror}; the job goes on")
            self._out.write(rank.lines.feed(data))
        else:
            self._close_pipe(rank)
        # A slow reader slows the ranks down, as in any pipeline; ranks that are to end must not hang on it.
        if self._out.full and self._ending is None and not self._paused:
            self._paused = True
            for other in self._ranks:
                if other.pipe >= 0:
                    self._loop.unwatch(other.pipe)
        return len(data)

    def _read_rest(self, rank: Rank) -> None:
        """Read what an ended rank has left in its pipe."""
        taken = 0
        while rank.pipe >= 0 and taken < PIPE_MOST and (size := self._read(rank)):
            taken += size

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            for rank in self._ranks:
                if rank.pipe >= 0:
                    self._listen(rank)

    def _close_pipe(self, rank: Rank) -> None:
        self._loop.unwatch(rank.pipe)
        self._out.write(rank.close_pipe())

    def _signal_group(self, rank: Rank, number: int) -> None:
        """Signal a rank's process group, or learn that it is empty."""
        if rank.group_alive:
            try:
                os.killpg(rank.pid, number)
            except ProcessLookupError:
                if rank.code is not None:
                    rank.group_alive = False
                    if self._guard is not None:
                        self._guard.remove(rank.pid)
            except PermissionError:
                # macOS says so of a group that has only zombies left.
                rank.group_alive = rank.code is None

    def _settle(self) -> None:
        """Move what is left towards its end, and find out whether all is over."""
        if self.ended:
            return
        running = any(rank.code is None for rank in self._ranks)
        if self._ending is None:
            if running:
                return
            # What ranks leave behind ends with the last of them.
            self._ending = signal.SIGKILL
            self._give_up_later()
        left = [rank for rank in self._ranks if rank.code is not None and rank.group_alive]
        for rank in left:
            # Once its leader is gone, the rest of a group is asked too: a shell's child, say, still at its checkpoint.
            self._signal_group(rank, 0 if rank.group_signalled else self._ending)
            rank.group_signalled = True
        if any(rank.group_alive for rank in left):
            self._settle_later()
        elif not running:
            self._close_pipes()

    def _close_pipes(self) -> None:
        """No process of a rank is left: take the last output, and do not wait for long on whoever holds a pipe."""
        waited = self._pipes_since is not None and time.monotonic() - self._pipes_since > PIPE_PATIENCE
        for rank in self._ranks:
            self._read_rest(rank)
            if rank.pipe >= 0 and waited:
                self._close_pipe(rank)
        if all(rank.pipe < 0 for rank in self._ranks):
            self._end()
        else:
            self._pipes_since = self._pipes_since or time.monotonic()
            self._settle_later()

    def _settle_later(self) -> None:
        if self._look is not None:
            self._look.cancel()
        self._look = self._loop.after(GROUP_POLL, self._settle)

    def _give_up_later(self) -> None:
        self._loop.after(GIVE_UP, self._end)

    def _end(self) -> None:
        if not self.ended:
            stuck = [str(rank.rank) for rank in self._ranks if rank.code is None]
            if stuck:
                self._console.say(f"does not die of SIGKILL: rank {', '.join(stuck)}; look for a hung driver or disk")
            self.ended = True
            if self._guard is not None:
                self._guard.dismiss()
            self.on_ended()
