"""Programs in a pod, and connections to its ports, over websockets.

Each message's first byte is its channel, as in `v5.channel.k8s.io`.
Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence

import msgspec
import urllib3

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError
from stackctl.engines.kube_paths import address
from stackctl.engines.wire import Session, Wire
from stackctl.errors import JobFailed, MissingHere

CLOSES, PLAIN = "v5.channel.k8s.io", "v4.channel.k8s.io"
"""Protocols: with the first, which Kubernetes 1.30 and newer know, the end of standard input can be told."""

ROLE = "stackctl-debugger"
"""Which role allows it, in k8s/base."""

SWITCHED = 101
"""The status of an answer that opens a websocket."""

_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_CONTINUED, _BINARY, _CLOSED, _PING, _PONG = 0, 2, 8, 9, 10
_FINAL, _MASKED = 0x80, 0x80


def frame(code: int, data: bytes) -> bytes:
    """A client's frame (RFC 6455, 5.2)."""
    size = len(data)
    if size < 126:
        head = bytes([_FINAL | code, _MASKED | size])
    elif size < 1 << 16:
        head = bytes([_FINAL | code, _MASKED | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([_FINAL | code, _MASKED | 127]) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    pattern = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(data, "big") ^ int.from_bytes(pattern, "big")
    return head + mask + masked.to_bytes(size, "big")


class Frames:
    """Takes bytes of a websocket apart."""

    def __init__(self) -> None:
        self._rest, self._message = b"", b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The messages that are whole: each its code (2 for data, 8, 9 or 10) and its bytes."""
        self._rest += data
        while (cut := _first(self._rest)) is not None:
            start, end = cut
            code, final, data = self._rest[0] & 0x0F, self._rest[0] & _FINAL, self._rest[start:end]
            self._rest = self._rest[end:]
            if code >= _CLOSED:
                yield code, data
                continue
            self._message += data
            if final:
                message, self._message = self._message, b""
                yield _BINARY, message


def _first(data: bytes) -> tuple[int, int] | None:
    """Where the payload of the first frame starts and ends; None if it is not whole yet. A server masks nothing."""
    if len(data) < 2:
        return None
    size, start = data[1] & 0x7F, 2
    if size > 125:
        start = 4 if size == 126 else 10
        if len(data) < start:
            return None
        size = int.from_bytes(data[2:start], "big")
    return (start, start + size) if len(data) >= start + size else None


def _upgraded(
    cluster: Cluster, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str]
) -> tuple[urllib3.BaseHTTPResponse, str]:
    """A websocket: the response over whose connection it goes on, and the protocol that the server has chosen."""
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": ", ".join(protocols),
    }
    try:
        response = cluster.opened(path, query, handshake)
    except ApiError as error:
        if error.reason == "RBAC":
            error.hint = f"ask for the role {ROLE} in k8s/base/rbac.yaml"
        raise
    chosen = response.headers.get("Sec-WebSocket-Protocol", "")
    if response.status != SWITCHED or chosen not in protocols:
        response.close()
        raise ApiError(f"the cluster at {cluster.host} opens no websocket", hint="a proxy before it may not let one")
    return response, chosen


class _Channels(Session):
    """Messages with a channel each."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self._frames = Frames()

    def messages(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Channel and bytes of each message in what has come."""
        for code, message in self._frames.feed(data):
            if code == _PING:
                self.wire.put(frame(_PONG, message))
            elif code == _CLOSED:
                self.wire.put(frame(_CLOSED, message[:2]))
                self.wire.end()
            elif code == _BINARY and message:
                yield message[0], message[1:]

    def tell(self, channel: int, data: bytes) -> None:
        """Send a message."""
        self.wire.put(frame(_BINARY, bytes([channel]) + data))

    def beat(self) -> None:
        """A ping, which the server answers."""
        self.wire.put(frame(_PING, b""))


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []


class _Status(msgspec.Struct):
    status: str = ""
    message: str = ""
    reason: str = ""
    details: _Details | None = None


class Executed(_Channels):
    """A program in a container of a pod."""

    def __init__(
        self, cluster: Cluster, namespace: str, pod: str, container: str, argv: Sequence[str], *, tty: bool
    ) -> None:
        """Start it.

        Raises:
            ApiError: It is not allowed, or the pod does not run any more.
        """
        streams = [("stdin", "true"), ("stdout", "true"), ("stderr", str(not tty).lower()), ("tty", str(tty).lower())]
        query = [("container", container), *(("command", word) for word in argv), *streams]
        path = address("Pod", namespace, pod, "exec")
        response, self._protocol = _upgraded(cluster, path, query, (CLOSES, PLAIN))
        super().__init__(Wire.of(response))
        self._status: _Status | None = None

    def decode(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The output in what has come."""
        for channel, message in self.messages(data):
            if channel == _STATUS:
                self._status = msgspec.json.decode(message, type=_Status)
            elif channel in (_STDOUT, _STDERR) and message:
                yield channel, message

    def send(self, data: bytes) -> None:
        """Give it input."""
        self.tell(_STDIN, data)

    def end(self) -> None:
        """Its input has ended; an older cluster cannot be told."""
        if self._protocol == CLOSES:
            self.tell(_CLOSE, bytes([_STDIN]))

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size now."""
        self.tell(_RESIZE, msgspec.json.encode({"Width": columns, "Height": rows}))

    def exit_code(self) -> int:
        """Its exit code."""
        status = self._status
        if status is None:
            raise JobFailed("the connection broke off: it is not known how the program ended, or whether it goes on")
        if status.status == "Success":
            return 0
        for cause in status.details.causes if status.details else ():
            if cause.reason == "ExitCode" and cause.message.isdigit():
                return int(cause.message)
        raise MissingHere(f"the cluster says: {status.message or status.reason}")


class Forwarded(_Channels):
    """A connection to a port of a pod. Half of it cannot be closed."""

    def __init__(self, cluster: Cluster, namespace: str, pod: str, port: int) -> None:
        """Connect.

        Raises:
            ApiError: It is not allowed, or the pod does not run any more.
        """
        path = address("Pod", namespace, pod, "portforward")
        response, _ = _upgraded(cluster, path, [("ports", str(port))], (PLAIN,))
        super().__init__(Wire.of(response))
        self._begun: set[int] = set()

    def decode(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """What has come from the port, and why it does not answer. A channel's first message is the port's number."""
        for channel, message in self.messages(data):
            if channel not in self._begun:
                self._begun.add(channel)
            elif channel in (0, 1):
                yield channel + 1, message

    def send(self, data: bytes) -> None:
        """Send to the port."""
        self.tell(0, data)

    def end(self) -> None:
        """It cannot be told."""

    def exit_code(self) -> int:
        """There is none."""
        return 0
