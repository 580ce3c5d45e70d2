"""The loopback interface's name, for libraries that want an interface and not an address."""

import contextlib
import socket
from collections.abc import Collection


def interface(names: Collection[str] | None = None) -> str:
    """Return `lo`, or `lo0` where that is its name: macOS and the BSDs. gloo ends a rank that names another.

    Args:
        names: this machine's interfaces; asked of the system by default.
    """
    if names is None:
        names = []
        with contextlib.suppress(OSError):  # a sandbox may not tell
            names = [name for _, name in socket.if_nameindex()]
    return "lo0" if "lo0" in names and "lo" not in names else "lo"
