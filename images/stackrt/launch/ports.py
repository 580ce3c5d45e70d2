"""Free ports for the frameworks, reserved until their servers take them. The launcher's own is `contract.PORT`."""

import contextlib
import socket

from stackrt.launch.environment import IS_LINUX, is_loopback

BACKLOG = 4096
"""Connections that wait to be taken; the kernel's own limit may be lower."""


class Ports:
    """Ports that nobody else is given between our choice and the rank's own `bind`.

    Linux lets a second socket bind a port, and listen, while a first one holds it, if both set SO_REUSEADDR and the
    first does not listen; and it gives a held port to nobody who asks for any port. torch's store, gRPC and Python's
    HTTP server all set SO_REUSEADDR. Elsewhere a held port is taken, so it is let go just before the ranks start.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def reserve(self, count: int) -> list[int]:
        """Choose `count` ports that are free on every IPv4 address of this machine."""
        chosen = []
        for _ in range(count):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", 0))
            self._held.append(sock)
            chosen.append(int(sock.getsockname()[1]))
        return chosen

    def hand_over(self) -> None:
        """Make room for the ranks' own servers; call just before they start."""
        if not IS_LINUX:
            self.close()

    def close(self) -> None:
        """Let all ports go."""
        for sock in self._held:
            sock.close()
        self._held.clear()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens: on the loopback address only if the host is one, else on all addresses.

    Raises:
        OSError: the port is taken, or is not for this user.
    """
    if is_loopback(host):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = "127.0.0.1" if host == "localhost" else host
        return socket.create_server((address, port), family=family, backlog=BACKLOG)
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("", port), backlog=BACKLOG)
