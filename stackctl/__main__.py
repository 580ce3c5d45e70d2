"""`stackctl`, and `python -m stackctl`."""

import signal

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Run the command line. Ctrl-C while it is still being imported ends it like any program, without a traceback.

    After that SIGTERM and SIGHUP interrupt it as Ctrl-C does, so that it puts things right.
    """
    # A shell's background job, or nohup: leave it so.
    heard = [number for number in _INTERRUPTS if signal.getsignal(number) != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, signal.SIG_DFL)
    from stackctl.cli.main import main as run

    for number in heard:
        signal.signal(number, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
