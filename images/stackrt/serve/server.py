"""The HTTP server: uvicorn, with a bound on slow headers, and an end that loses no request."""

import asyncio
import select
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from stackrt.serve.guard import State, say
from stackrt.serve.options import Options
from stackrt.signals import TOGETHER

HEADER_BYTES = 32 << 10
SETTLE = 0.5
"""Seconds that a connection which has just been taken has to send its request, before the server ends."""
TICK = 0.1
"""Seconds in which a connection that was taken becomes one of the server's."""


def config(app: Any, o: Options) -> uvicorn.Config:
    """Uvicorn's settings."""

    class Bounded(H11Protocol):
        """A connection whose next request's headers must come in time; uvicorn waits for ever once a byte has come."""

        _slow: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._slow is None:
                self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._stop()

        def _start(self) -> None:
            self._slow = self.loop.call_later(o.read_timeout, self.transport.close)

        def _stop(self) -> None:
            if self._slow is not None:
                self._slow.cancel()
                self._slow = None

    return uvicorn.Config(
        app,
        http=Bounded,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        backlog=1024,
        limit_concurrency=o.max_connections,
        timeout_keep_alive=max(5, int(o.drain) + 1),
        timeout_graceful_shutdown=int(o.grace),
        h11_max_incomplete_event_size=HEADER_BYTES,
    )


class Server(uvicorn.Server):
    """A server that goes on answering for a while after it was asked to end, or to leave its socket to others.

    Who sends requests learns of the end a moment later: until then they must be answered. A second signal ends at once.
    Before it ends, the server takes no more connections and reads what is still coming on those that it has.

    Args:
        leave: A descriptor that can be read from once others have the socket.
        left: Is called when it takes no more connections for that reason.
    """

    def __init__(self, app: Any, o: Options, state: State, leave: int, left: Callable[[], None]) -> None:
        super().__init__(config(app, o))
        self._o, self._state, self._leave, self._left = o, state, leave, left
        self._began = self._closed = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        now = time.monotonic()
        if self._state.draining:
            if now > self._began + TOGETHER:  # else it is the same request, from above and from a terminal
                self.should_exit = self.force_exit = True
            return
        self._state.draining, self._began = True, now
        say("draining", signal=sig, seconds=self._o.drain)

    async def on_tick(self, counter: int) -> bool:
        """Look whether it is time."""
        now = time.monotonic()
        if not self._state.leaving and select.select([self._leave], [], [], 0)[0]:
            self._state.leaving, self._closed = True, now
            self._close()
            self._left()
        elif self._state.draining and not self._closed and now >= self._began + self._o.drain:
            self._closed = now
            self._close()
        if self._closed:
            most = self._o.drain if self._state.leaving and not self._state.draining else SETTLE
            idle = not self.server_state.connections and now >= self._closed + TICK
            self.should_exit = self.should_exit or idle or now >= self._closed + most
        return bool(await super().on_tick(counter))

    def _close(self) -> None:
        """Take no more connections."""
        for server in self.servers:
            server.close()
