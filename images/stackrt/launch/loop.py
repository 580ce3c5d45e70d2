"""One event loop over `selectors`: descriptors, timers and signals, in one thread."""

import contextlib
import heapq
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
SLEEP = 1.0
"""The longest sleep in seconds; it bounds what `awake` can miss."""
STALL = 1.0
"""Seconds beyond a planned sleep that still count as awake; more means that this process was not running."""


class HasFileno(Protocol):
    """A file or a socket."""

    def fileno(self) -> int:
        """The descriptor."""


class Timer:
    """A call planned for later."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Never run the call; harmless when it has run."""
        self._call = None

    def fire(self) -> None:
        """Run the call unless it was cancelled."""
        call, self._call = self._call, None
        if call is not None:
            call()


class Loop:
    """Runs callbacks when descriptors are ready, times have come or signals have arrived."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._planned = 0
        self._exit_code: int | None = None
        self.awake = 0.0
        """Seconds this process has been running its loop. A suspended, stopped or starved process does not age,
        so silence measured on this clock is the other end's, not our own."""

    def watch(self, file: HasFileno | int, events: int, call: Callable[[], object]) -> None:
        """Call back whenever `file` is ready for `events` (READ, WRITE or both); replaces an earlier watch.

        Raises:
            PermissionError: the kernel can't poll this kind of file (a regular file, /dev/null on Linux).
        """
        try:
            self._selector.modify(file, events, call)
        except KeyError:
            self._selector.register(file, events, call)

    def unwatch(self, file: HasFileno | int) -> None:
        """Stop calling back for `file`; harmless when it is not watched."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(file)

    def after(self, delay: float, call: Callable[[], None]) -> Timer:
        """Plan a call in `delay` seconds; 0 means in the next round."""
        timer = Timer(call)
        self._planned += 1
        heapq.heappush(self._timers, (time.monotonic() + delay, self._planned, timer))
        return timer

    def every(self, period: float, call: Callable[[], None]) -> None:
        """Call now-and-again, `period` seconds apart, for as long as the loop runs."""

        def again() -> None:
            self.after(period, again)
            call()

        self.after(period, again)

    def on_signals(self, signals: tuple[int, ...], call: Callable[[int], None]) -> None:
        """Deliver signals as callbacks of the loop, never in the middle of other code."""
        readable, writable = os.pipe()
        for end in (readable, writable):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)  # first, or a signal in between would be lost
        for number in signals:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # under nohup
            signal.signal(number, lambda *_: None)
            # Restart system calls, so that nothing outside the loop sees an interruption.
            signal.siginterrupt(number, False)

        def deliver() -> None:
            # Ended children last: who signals every process at once ends a rank before we hear of it ourselves.
            for number in sorted(os.read(readable, 4096), key=lambda number: number == signal.SIGCHLD):
                if number in signals:
                    call(number)

        self.watch(readable, READ, deliver)

    def finish(self, exit_code: int) -> None:
        """End `run` after the current callback; the first call decides."""
        if self._exit_code is None:
            self._exit_code = exit_code

    def run(self) -> int:
        """Run until `finish`, and return its exit code."""
        before = time.monotonic()
        while self._exit_code is None:
            due = self._timers[0][0] - time.monotonic() if self._timers else SLEEP
            sleep = min(max(due, 0.0), SLEEP)
            ready = self._selector.select(sleep)
            now = time.monotonic()
            self.awake += min(now - before, sleep + STALL)
            before = now
            for key, _ in ready:
                # An earlier callback of this round may have dropped this descriptor.
                if self._exit_code is None and self._selector.get_map().get(key.fd) is key:
                    key.data()
            while self._timers and self._timers[0][0] <= now and self._exit_code is None:
                heapq.heappop(self._timers)[2].fire()
        return self._exit_code
