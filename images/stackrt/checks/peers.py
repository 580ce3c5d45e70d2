"""Talking to the other nodes: a listener that answers with the time and swallows data, and its clients."""

import fcntl
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SIOCGIFADDR = 0x8915
"""ioctl(2): an interface's IPv4 address (netdevice(7))."""
CONNECT_SECONDS = 5.0
BLOCK = bytes(2**18)


class NoAddressError(Exception):
    """This node has no address at which others could reach it; `str()` says why."""


def own_address() -> str:
    """The address at which the other nodes should reach this one, as the frameworks find it.

    That of GLOO_SOCKET_IFNAME's interface if it is set, else that of this host's own name.

    Raises:
        NoAddressError: There is no such interface, or the name leads nowhere or to this machine only.
    """
    interface = os.environ.get("GLOO_SOCKET_IFNAME")
    if interface:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                answer = fcntl.ioctl(sock, SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
            except OSError as error:
                raise NoAddressError(f"GLOO_SOCKET_IFNAME={interface}: {error.strerror}") from None
        return socket.inet_ntoa(answer[20:24])
    name = socket.gethostname()
    try:
        found = [row[4][0] for row in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise NoAddressError(f"its own name {name!r} cannot be resolved: {error.strerror}") from None
    outside = [str(address) for address in found if not str(address).startswith(("127.", "::1"))]
    if not outside:
        raise NoAddressError(f"its own name {name!r} resolves to {found[0]}, which is this machine only")
    return outside[0]


@contextmanager
def listening(clock: "Clock") -> Iterator[int]:
    """Within the block, answer other nodes on a free port of all addresses; yields the port."""
    with socket.create_server(("", 0), backlog=128) as listener:
        threading.Thread(target=_serve, args=(listener, clock), daemon=True).start()
        yield int(listener.getsockname()[1])


class Clock:
    """This node's wall clock, in Unix time."""

    def now(self) -> float:
        """The time."""
        return time.time()


def _serve(listener: socket.socket, clock: Clock) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # closed: the check is over
        threading.Thread(target=_answer, args=(connection, clock), daemon=True).start()


def _answer(connection: socket.socket, clock: Clock) -> None:
    """`t`: send the time. `d`: take all data until the other end is done, and say how much it was."""
    with connection, suppress(OSError):
        connection.settimeout(60)
        kind = connection.recv(1)
        if kind == b"t":
            connection.sendall(json.dumps(clock.now()).encode())
        elif kind == b"d":
            buffer, total = bytearray(2**20), 0
            while count := connection.recv_into(buffer):
                total += count
            connection.sendall(json.dumps(total).encode())


def clock_offset(address: str, port: int, clock: Clock) -> float:
    """Seconds that another node's clock is ahead of ours: of three answers the one that came fastest.

    Raises:
        OSError: It cannot be reached.
    """
    best = (float("inf"), 0.0)
    for _ in range(3):
        begun = time.monotonic()
        asked = clock.now()
        with socket.create_connection((address, port), timeout=CONNECT_SECONDS) as connection:
            connection.sendall(b"t")
            theirs = float(json.loads(connection.recv(64)))
        took = time.monotonic() - begun
        best = min(best, (took, theirs - (asked + took / 2)))
    return best[1]


def bandwidth(address: str, port: int, seconds: float) -> float:
    """Gigabits per second that another node takes from us over one connection.

    Raises:
        OSError: It cannot be reached, or went away.
    """
    with socket.create_connection((address, port), timeout=CONNECT_SECONDS) as connection:
        connection.settimeout(60)
        begun = time.monotonic()
        connection.sendall(b"d")
        while time.monotonic() - begun < seconds:
            connection.sendall(BLOCK)
        connection.shutdown(socket.SHUT_WR)
        total = float(json.loads(connection.recv(64)))
        return total * 8 / 1e9 / (time.monotonic() - begun)
