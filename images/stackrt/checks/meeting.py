"""Where the nodes of a run meet: each brings a value under a key, and gets the values of all.

Node 0 serves it, at the address and port that the launcher found for the ranks (MASTER_ADDR, MASTER_PORT). A request is
one line of JSON on a connection of its own, so a check in its own process can ask as well. There is no authentication,
as on the frameworks' own ports: keep it inside a trusted network.
"""

import json
import os
import selectors
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from stackrt.checks.isolate import end_with_parent

LONGEST_LINE = 64 * 2**20
RETRY_SECONDS = 0.1
REPLY_SECONDS = 10.0
"""A node that does not take its answer this long is left to itself."""


class MeetingError(Exception):
    """Not all nodes came; `str()` names those that did not."""


def gather(meeting: tuple[str, int], node: int, key: str, value: Any, seconds: float) -> list[Any]:
    """Bring a value, and return the values of all nodes, by node.

    Args:
        meeting: Host and port of the server.
        node: This node's rank.
        key: A name that all nodes use once.
        value: A JSON value.
        seconds: How long to wait for the others.

    Raises:
        MeetingError: Some node did not come in time.
    """
    deadline = time.monotonic() + seconds
    line = json.dumps({"key": key, "node": node, "value": value, "seconds": seconds}).encode() + b"\n"
    while True:
        try:
            with socket.create_connection(meeting, timeout=max(0.1, deadline - time.monotonic())) as connection:
                connection.sendall(line)
                connection.settimeout(max(0.1, deadline - time.monotonic()) + 2 * REPLY_SECONDS)
                with connection.makefile("rb") as answers:
                    answer = json.loads(answers.readline(LONGEST_LINE) or b"{}")
        except (OSError, ValueError) as error:
            if time.monotonic() > deadline:
                raise MeetingError(f"node 0 does not answer at {meeting[0]}:{meeting[1]}: {error}") from None
            time.sleep(RETRY_SECONDS)
            continue
        if "values" in answer:
            return list(answer["values"])
        absent = ", ".join(str(number) for number in answer.get("absent", [])) or "?"
        raise MeetingError(f"node {absent} did not come to {key!r} within {seconds:g} s")


@dataclass
class _Round:
    """A key: who has come, until when the others are waited for, and the answer once there is one."""

    deadline: float
    values: dict[int, Any] = field(default_factory=dict)
    waiting: list[tuple[int, socket.socket]] = field(default_factory=list)
    answer: dict[str, Any] | None = None


class Server:
    """The meeting's server, a process of its own that ends with the one that started it."""

    def __init__(self, port: int, nodes: int) -> None:
        listener = socket.create_server(("", port), backlog=max(128, 4 * nodes), reuse_port=False)
        self.pid = os.fork()
        if self.pid == 0:
            _serve(listener, nodes)
        listener.close()

    def close(self) -> None:
        """End it. Whoever has an answer to come has been sent it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)


def _serve(listener: socket.socket, nodes: int) -> NoReturn:
    """Answer until we are ended."""
    try:
        end_with_parent()
        rounds: dict[str, _Round] = {}
        partial: dict[socket.socket, bytes] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(RETRY_SECONDS):
                    if key.fileobj is listener:
                        connection, _ = listener.accept()
                        connection.setblocking(False)
                        partial[connection] = b""
                        selector.register(connection, selectors.EVENT_READ)
                    else:
                        _hear(key.fileobj, partial, rounds, nodes, selector)  # type: ignore[arg-type]
                for one in rounds.values():
                    if one.answer is None and time.monotonic() > one.deadline:
                        _answer(one, {"absent": [node for node in range(nodes) if node not in one.values]})
    finally:
        os._exit(0)


def _hear(
    connection: socket.socket,
    partial: dict[socket.socket, bytes],
    rounds: dict[str, _Round],
    nodes: int,
    selector: selectors.BaseSelector,
) -> None:
    """Take what has come on a connection; once it is a whole request, put it to its round."""
    try:
        data = connection.recv(2**20)
    except BlockingIOError:
        return
    except OSError:
        data = b""
    partial[connection] += data
    if data and not data.endswith(b"\n") and len(partial[connection]) < LONGEST_LINE:
        return
    selector.unregister(connection)
    try:
        request = json.loads(partial.pop(connection))
        key, node, seconds = str(request["key"]), int(request["node"]), float(request["seconds"])
        value = request["value"]
    except (ValueError, KeyError, TypeError):
        connection.close()  # a port scanner, or a node that has gone
        return
    one = rounds.setdefault(key, _Round(time.monotonic() + seconds))
    one.values[node] = value
    one.waiting.append((node, connection))
    if one.answer is not None:
        _answer(one, one.answer)
    elif len(one.values) == nodes:
        _answer(one, {"values": [one.values[number] for number in range(nodes)]})


def _answer(one: _Round, answer: dict[str, Any]) -> None:
    """Send everyone who waits the answer: node 0 last, for it may then end this process."""
    one.answer = answer
    line = json.dumps(answer).encode() + b"\n"
    for _, connection in sorted(one.waiting, key=lambda pair: -pair[0]):
        with suppress(OSError):
            connection.settimeout(REPLY_SECONDS)
            connection.sendall(line)
        connection.close()
    one.waiting.clear()
