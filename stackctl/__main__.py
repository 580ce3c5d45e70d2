"""`stackctl`, and `python -m stackctl`."""

import os
import signal
import sys
from types import FrameType

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_NOTICES = (signal.SIGUSR1, signal.SIGUSR2)
_SOON = 0.01


def main() -> None:
    """Run the command line. Ctrl-C while it is still being imported ends it like any program, without a traceback.

    After that SIGTERM, SIGHUP and SIGQUIT interrupt it as Ctrl-C does, so that it puts things right.
    """
    # A shell's background job, or nohup: leave it so.
    _fill_standard_streams()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as a shell's trap may leave it, no exit code can be read
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [*_INTERRUPTS, *_NOTICES, signal.SIGCHLD])
    for number in _NOTICES:
        signal.signal(number, signal.SIG_IGN)  # until a run passes them on
    heard = [number for number in _INTERRUPTS if signal.getsignal(number) != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, signal.SIG_DFL)
    from stackctl.cli.main import main as run

    sys.unraisablehook = _interrupt_again
    signal.signal(signal.SIGALRM, _as_ctrl_c)
    for number in heard:
        signal.signal(number, signal.default_int_handler)
    run()


def _fill_standard_streams() -> None:
    """Open the null device where one is closed: else a file of ours gets its number, and children write into that."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Have an interrupt come again that Python drops, since it came in a callback; the import system has such."""
    if lost.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, _SOON)
    else:
        sys.__unraisablehook__(lost)


def _as_ctrl_c(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
