"""Ports for what a test starts."""

from __future__ import annotations

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A port of an address of this machine that was free a moment ago."""
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])
