"""Where the nodes of a run meet: each brings a value under a key, and gets the values of all.

They meet in the launcher's store (stackrt.launch.store), at MASTER_ADDR and MASTER_PORT. Where nobody serves one there,
node 0 does. A check in its own process can ask as well. There is no authentication, as on the frameworks' own ports:
keep it inside a trusted network.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from stackrt.checks.isolate import end_with_parent
from stackrt.launch.loop import Loop
from stackrt.launch.output import Console, Sink
from stackrt.launch.ports import listen
from stackrt.launch.store import READY, Client, Store

RETRY_SECONDS = 0.1
REPLY_SECONDS = 10.0
"""A store that is silent this long is gone; where node 0 serves it, it waits this long for the others at the end."""
LEFT = "left"


class MeetingError(Exception):
    """Not all nodes came; `str()` names those that did not."""


def gather(meeting: tuple[str, int], node: int, key: str, value: Any, seconds: float, nodes: int) -> list[Any]:
    """Bring a value, and return the values of all nodes, by node.

    Args:
        meeting: Host and port of the store.
        node: This node's rank.
        key: A name that all nodes use once.
        value: A JSON value.
        seconds: How long to wait for the others.
        nodes: How many there are.

    Raises:
        MeetingError: Some node did not come in time.
    """
    deadline = time.monotonic() + seconds
    keys = [f"{key}/{number}" for number in range(nodes)]
    while True:
        try:
            with Client(meeting, REPLY_SECONDS) as client:
                client.set(keys[node], json.dumps(value).encode())
                if not client.wait(keys, max(0.0, deadline - time.monotonic())):
                    absent = [str(number) for number, name in enumerate(keys) if client.check([name]) != READY]
                    raise MeetingError(f"node {', '.join(absent) or '?'} did not come to {key!r} within {seconds:g} s")
                return [json.loads(value) for value in client.get(keys)]
        except (OSError, ValueError) as error:
            if time.monotonic() > deadline:
                raise MeetingError(f"node 0 does not answer at {meeting[0]}:{meeting[1]}: {error}") from None
            time.sleep(RETRY_SECONDS)


class Server:
    """A store on node 0 where no launcher serves one: a process of its own that ends with the one that started it."""

    def __init__(self, meeting: tuple[str, int], nodes: int) -> None:
        self._meeting, self._nodes = meeting, nodes
        listener = listen(*meeting)
        self.pid = os.fork()
        if self.pid == 0:
            _serve(listener)
        listener.close()

    def close(self) -> None:
        """End it, once every node has what it asked for."""
        with suppress(OSError), Client(self._meeting, REPLY_SECONDS) as client:
            deadline = time.monotonic() + REPLY_SECONDS
            while client.add(LEFT, 0) < self._nodes - 1 and time.monotonic() < deadline:
                time.sleep(RETRY_SECONDS)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def leave(meeting: tuple[str, int]) -> None:
    """Tell node 0 that this node needs its store no more."""
    with suppress(OSError), Client(meeting, REPLY_SECONDS) as client:
        client.add(LEFT, 1)


def is_served(env: Mapping[str, str]) -> bool:
    """Whether a launcher serves a store for its ranks."""
    return env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _serve(listener: socket.socket) -> NoReturn:
    """Answer until we are ended."""
    try:
        end_with_parent()
        loop = Loop()
        Store(loop, listener, Console(Sink(loop, 2)))
        loop.run()
    finally:
        os._exit(0)
