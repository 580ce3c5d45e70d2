"""Which signals a job hears, and when two are one request. The launcher and stackctl share these rules."""

import signal

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
