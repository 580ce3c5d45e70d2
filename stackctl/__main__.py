"""`stackctl`, and `python -m stackctl`."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C while it is still being imported ends it like any program, without a traceback."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # a shell's background job: leave it so
    if not ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from stackctl.cli.main import main as run

    if not ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
