"""The failures a trainer expects, each with the exit code that the launcher reads."""

import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable

from stackrt import signals
from stackrt.contract import CONFIG, PEERS

INTERRUPTED = 128  # plus the signal's number: stopped on request, with a checkpoint


class TrainerError(Exception):
    """A failure with one clear line for the user instead of a traceback.

    Attributes:
        exit_code: What the process ends with.
    """

    exit_code = 1


class BadInputError(TrainerError):
    """An option, file or setting that cannot work, however often it is tried."""

    exit_code = CONFIG


class PeersGoneError(TrainerError):
    """Another rank left during a collective; another attempt may well succeed."""

    exit_code = PEERS


ERRORS: dict[int, type[TrainerError]] = {kind.exit_code: kind for kind in (TrainerError, BadInputError, PeersGoneError)}


FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a write fails with where there is no room, or none for us."""

HEAD_START = 1.0
"""Seconds that other ranks leave rank 0, which alone says what all of them know, to be the first that fails: the
launcher reports the first failed rank and its last lines."""


def say_once(text: str) -> None:
    """Print what is wrong on every rank from rank 0 only; the others wait a moment."""
    if os.environ.get("RANK", os.environ.get("HOROVOD_RANK", "0")) == "0":
        print(f"error: {text}", file=sys.stderr, flush=True)
    else:
        time.sleep(HEAD_START)


def complain(error: TrainerError) -> int:
    """Print a failure as one line, and return its exit code."""
    say_once(str(error))
    return error.exit_code


def ended(run: Callable[[], int]) -> int:
    """Run a program to its exit code; an expected failure becomes one line, and so does a full disk.

    What it prints may hold a file's name that is no text, or text that the locale has no letters for.

    Raises:
        TrainerError: With STACK_DEBUG=1.
        OSError: The same; any other than of a full disk always.
    """
    signals.end_in_order()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    debug = os.environ.get("STACK_DEBUG") == "1"
    try:
        return run()
    except TrainerError as error:
        if debug:
            raise
        return complain(error)
    except OSError as error:
        if debug or error.errno not in FULL:
            raise
        if not error.filename:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it must not fail again
        return complain(TrainerError(f"{error.filename or 'standard output'}: {error.strerror}"))
    except KeyboardInterrupt:
        return INTERRUPTED + signal.SIGINT
