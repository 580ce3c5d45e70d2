"""The process that holds the socket: it keeps as many workers as were asked for, and changes their model.

It imports nothing slow. Another model's workers are started beside the ones that answer, on the same socket; once all
of them are ready the others take no more connections, answer what they have, and end: no request meets a closed door.
An order is carried out once the others have told that they take no more: who asks then is answered by its model.
"""

import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from stackrt.launch.guard import die_with
from stackrt.serve import door, guard, memory, options, orders, watch, worker
from stackrt.serve import found as models
from stackrt.serve.options import Options
from stackrt.signals import STOPS, for_rank, handled
from stackrt.train.errors import BadInputError

FAILED_STARTS = 3
"""In a row, after which a worker is not started again."""
LOOK = 0.5
"""Seconds between two looks for an order."""
KEPT = ("host", "port", "door", "token_file", "orders")
"""Options that belong to the service and not to its model: they stay."""


@dataclass(eq=False)
class _Team:
    """The workers of one model.

    Attributes:
        alive: Process -> when it was started.
        seats: Process -> its number among the workers, which one that is started in its place gets.
        ready: Those that answer.
        order: What asked for it; None for the first.
        lines: What it has: descriptors, and its folder of metrics.
    """

    task: worker.Task
    leave: int
    lines: ExitStack
    order: orders.Order | None = None
    alive: dict[int, float] = field(default_factory=dict)
    seats: dict[int, int] = field(default_factory=dict)
    ready: set[int] = field(default_factory=set)
    failed: int = 0
    said: str = ""

    @property
    def whole(self) -> bool:
        """Whether all that were asked for answer."""
        return len(self.ready) >= self.task.o.workers


class Keeper:
    """Keeps workers.

    Args:
        o: The server's options.
        model: The model.
        listening: The socket.
        began: When the server was started.
        stopped: Signals that have come so far.
    """

    def __init__(
        self, o: Options, model: models.Model, listening: socket.socket, began: float, stopped: Sequence[int] = ()
    ) -> None:
        self._listening, self._stopped, self._stopping, self._code = listening, stopped, False, 0
        self._heard, self._tell = os.pipe()
        os.set_blocking(self._heard, False)
        self._rest = b""
        self._arm = die_with(os.getpid())  # a worker that outlived this process would keep the port
        self._known = ""  # the order that was seen last; one that is there already stands
        self._now = self._team(o, model, began)
        self._next: _Team | None = None
        self._leaving: list[_Team] = []
        self._owed: orders.Order | None = None  # whose answer waits until nobody of the model before takes connections
        self._taking: set[int] = set()

    def run(self) -> int:
        """Until the last worker has ended; returns the exit code."""
        with handled(self._stop), _woken() as wakes, selectors.DefaultSelector() as look:
            for readable in (wakes, self._heard):
                look.register(readable, selectors.EVENT_READ)
            self._stopping = self._stopping or bool(self._stopped)
            self._start(self._now)
            while any(team.alive for team in self._teams()):
                look.select(LOOK if self._now.task.o.orders else None)
                with suppress(BlockingIOError):
                    os.read(wakes, 4096)
                self._hear()
                self._reap()
                self._settle()
                self._look_for_order()
        self._now.lines.close()
        return self._code

    # -- workers

    def _team(self, o: Options, model: models.Model, began: float, order: orders.Order | None = None) -> _Team:
        lines = ExitStack()
        leave, told = os.pipe()
        for opened in (leave, told):
            lines.callback(os.close, opened)
        metrics = lines.enter_context(watch.shared(o.workers))
        task = worker.Task(o, model, self._listening, self._tell, leave, began, metrics)
        return _Team(task, told, lines, order)

    def _start(self, team: _Team) -> None:
        """Start the workers that are missing."""
        while len(team.alive) < team.task.o.workers:
            # A signal that comes now waits until it can be passed on, or until the worker can hear it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
            seat = min(set(range(team.task.o.workers)) - {*team.seats.values()})
            process = None if self._stopping else os.fork()
            if process == 0:
                self._become(team, seat)
            if process:
                team.alive[process], team.seats[process] = time.monotonic(), seat
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if not process:
                return

    def _become(self, team: _Team, seat: int) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if self._arm:
                self._arm()
            code = worker.run(team.task, seat)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            worker.leave_process(code)

    def _stop(self, number: int) -> None:
        self._stopping = True
        for team in self._teams():
            _signal(team, for_rank(number))

    def _teams(self) -> list[_Team]:
        return [self._now, *([self._next] if self._next else ()), *self._leaving]

    def _hear(self) -> None:
        """What workers tell."""
        with suppress(BlockingIOError):
            self._rest += os.read(self._heard, 65_536)
        *whole, self._rest = self._rest.split(b"\n")
        for line in whole:
            row: dict[str, Any] = json.loads(line)
            if "left" in row:
                self._taking.discard(row["worker"])
                continue
            for team in self._teams():
                if row["worker"] in team.alive and "error" in row:
                    team.said = row["error"]
                elif row["worker"] in team.alive:
                    team.ready.add(row["worker"])
        if self._next and self._next.whole:
            self._go_over(self._next)

    def _reap(self) -> None:
        """What has ended."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not process:
                break
            team = next((team for team in self._teams() if process in team.alive), None)
            if team is not None:
                self._ended(team, process, os.waitstatus_to_exitcode(status))
        for team in [team for team in self._leaving if not team.alive]:
            self._leaving.remove(team)
            team.lines.close()

    def _ended(self, team: _Team, process: int, code: int) -> None:
        lived = time.monotonic() - team.alive.pop(process)
        del team.seats[process]
        team.ready.discard(process)
        self._taking.discard(process)
        watch.ended(process, team.task.metrics)
        if team is self._next:
            self._refuse(team, code)
        elif team is self._now and not self._stopping:
            guard.say("worker-ended", worker=process, code=code)
            team.failed = team.failed + 1 if lived < 30 else 0
            if code == BadInputError.exit_code or team.failed >= FAILED_STARTS:
                self._code = code if code > 0 else 1
                self._stop(signal.SIGTERM)
            else:
                self._start(team)

    # -- orders

    def _look_for_order(self) -> None:
        file = self._now.task.o.orders
        if file is None or self._next or self._owed or self._stopping or not self._now.whole:
            return
        order = orders.given(file)
        if order is None or order.id == self._known:
            return
        self._known = order.id
        try:
            o, model = self._checked(order)
        except BadInputError as error:
            self._answer(order, "refused", str(error))
            return
        self._answer(order, "loading")
        try:
            self._next = self._team(o, model, time.monotonic(), order)
            self._start(self._next)
        except OSError as error:  # no folder for its metrics, no pipe, no process
            self._answer(order, "refused", f"its workers cannot be started: {error.strerror}")
            begun, self._next = self._next, None
            if begun:
                self._leaving.append(begun)
                _signal(begun, signal.SIGKILL)

    def _checked(self, order: orders.Order) -> tuple[Options, models.Model]:
        """An order's options and model.

        Raises:
            BadInputError: They cannot work, or do not fit beside the model that is served.
        """
        now = self._now.task
        try:
            given = options.parse(order.words)
        except SystemExit:  # it asks for the options' help
            raise BadInputError("an order names a model, and options for it") from None
        usual = {row.name: row.default for row in fields(Options)}
        for name in KEPT:
            if getattr(given, name) not in (usual[name], getattr(now.o, name)):
                raise BadInputError(f"--{name.replace('_', '-')}: belongs to the service, and stays as it was started")
        o = replace(given, **{name: getattr(now.o, name) for name in KEPT})
        model = models.find(o.model)
        memory.fits(model, o, (now.model, now.o))
        return o, model

    def _answer(self, order: orders.Order, state: orders.State, said: str = "") -> None:
        file = self._now.task.o.orders
        guard.say("order", model=next(iter(order.words), ""), state=state, **({"said": said} if said else {}))
        if file is not None:
            try:
                orders.answer(file, order, state, said)
            except OSError as error:
                guard.say("error", engine=f"{file}: the answer cannot be written: {error.strerror}")

    def _go_over(self, team: _Team) -> None:
        before, self._now, self._next = self._now, team, None
        self._leaving.append(before)
        os.write(before.leave, b".")
        for process in set(before.alive) - before.ready:  # one that still loads cannot hear it
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        self._owed, self._taking = team.order, set(before.alive)

    def _settle(self) -> None:
        if self._owed and not self._taking:
            order, self._owed = self._owed, None
            self._answer(order, "serving")

    def _refuse(self, team: _Team, code: int) -> None:
        self._next = None
        self._leaving.append(team)
        _signal(team, signal.SIGKILL)
        if team.order:
            said = "the service ends" if self._stopping else team.said or f"its server ended with exit code {code}"
            self._answer(team.order, "refused", said)


def _signal(team: _Team, number: int) -> None:
    for process in team.alive:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process, number)


@contextmanager
def _woken() -> Iterator[int]:
    """Within the block, a descriptor that can be read from after each signal, and each end of a child."""
    readable, written = os.pipe()
    for opened in (readable, written):
        os.set_blocking(opened, False)
    before = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    earlier = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    try:
        yield readable
    finally:
        signal.set_wakeup_fd(earlier)
        signal.signal(signal.SIGCHLD, before)
        for opened in (readable, written):
            with suppress(OSError):
                os.close(opened)


def listening(o: Options) -> socket.socket:
    """The socket.

    Raises:
        BadInputError: The port is in use, or not ours to take; or nobody holds it for us.
    """
    return door.through(o.door) if o.door else door.bound(o.host, o.port)
