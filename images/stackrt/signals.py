"""Which signals a job hears, when two are one request, and how a program hears them: one rule for all of ours."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Each asks the whole job to end."""
NOTICES = (signal.SIGUSR1, signal.SIGUSR2)
"""Passed on to the ranks; what they mean is the program's own matter. Slurm's `--signal` and spot agents send them."""
TOGETHER = 2.0
"""Seconds in which further stops, or notices of one number, are the same request. Who ends a service signals all its
processes at once, so a launcher hears of it from above as well; a person's second Ctrl-C comes after that."""


def as_usual() -> None:
    """Undo what a parent may have left: ignored, a child's end can't be waited for; blocked, no signal comes.

    Shells' traps, service managers and job runners do that. Those of STOPS that are ignored stay so, as under nohup.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*STOPS, *NOTICES, signal.SIGCHLD))


def for_rank(stop: int) -> int:
    """Which signal asks a rank to end: programs that save on SIGTERM seldom know SIGHUP, and SIGQUIT dumps core."""
    return stop if stop in (signal.SIGTERM, signal.SIGINT) else signal.SIGTERM


@contextmanager
def handled(pass_on: Callable[[int], None], numbers: Sequence[int] = STOPS) -> Iterator[None]:
    """Within the block, these signals call `pass_on` with their number in place of ending us.

    One that we were started to ignore (under nohup, or in a shell's background) stays ignored.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        pass_on(number)

    before = {
        number: signal.signal(number, handle)
        for number in numbers
        if number in NOTICES or signal.getsignal(number) != signal.SIG_IGN  # notices we ignore ourselves, till a run
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def undisturbed() -> AbstractContextManager[None]:
    """Within the block STOPS do nothing: a second Ctrl-C must not spoil a clean-up."""
    return handled(lambda _number: None)


def end_at_once() -> None:
    """Have Ctrl-C end this process from here on: while it imports, a traceback would tell nobody anything."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_in_order() -> None:
    """Undo it: a Ctrl-C raises KeyboardInterrupt, and what was begun is put in order."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
