"""`stackctl`, and `python -m stackctl`."""

import signal
import sys
from types import FrameType

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SOON = 0.01


def main() -> None:
    """Run the command line. Ctrl-C while it is still being imported ends it like any program, without a traceback.

    After that SIGTERM, SIGHUP and SIGQUIT interrupt it as Ctrl-C does, so that it puts things right.
    """
    # A shell's background job, or nohup: leave it so.
    heard = [number for number in _INTERRUPTS if signal.getsignal(number) != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, signal.SIG_DFL)
    from stackrt.launch.streams import fill_standard_streams
    from stackrt.signals import NOTICES, as_usual

    for number in NOTICES:
        signal.signal(number, signal.SIG_IGN)  # until a run passes them on
    as_usual()
    fill_standard_streams()
    for stream, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # Python found it closed
            setattr(sys, name, open(stream, "r" if stream == 0 else "w", closefd=False))  # noqa: SIM115
    from stackctl.cli.main import main as run

    sys.unraisablehook = _interrupt_again
    signal.signal(signal.SIGALRM, _as_ctrl_c)
    for number in heard:
        signal.signal(number, signal.default_int_handler)
    run()


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
