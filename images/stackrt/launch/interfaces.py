"""Network interfaces by name, for libraries that want one and not an address.

Left alone, gloo takes the interface of whatever address the host's own name leads to, which is often none or the wrong
one; the connection between the launchers shows which one leads to the other nodes.
"""

import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Collection
from pathlib import Path

from stackrt.launch.environment import IS_LINUX

SIOCGIFADDR = 0x8915
"""Ask for an interface's IPv4 address (netdevice(7))."""


def towards(sock: socket.socket) -> str:
    """Return the interface that a connected socket leaves by; empty if that can't be told."""
    try:
        return of_address(str(sock.getsockname()[0]))
    except (OSError, ValueError):
        return ""


def of_address(text: str, proc: Path = Path("/proc")) -> str:
    """Return the interface that has an address of this machine; empty if none has, or it can't be told.

    Raises:
        ValueError: that is no address.
    """
    address = ipaddress.ip_address(text.partition("%")[0].removeprefix("::ffff:"))
    if not IS_LINUX:
        return ""
    if address.version == 6:
        with contextlib.suppress(OSError):
            for line in (proc / "net/if_inet6").read_text().splitlines():
                digits, *_, name = line.split()
                if int(digits, 16) == int(address):
                    return name
        return ""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                answer = fcntl.ioctl(asked, SIOCGIFADDR, struct.pack("256s", name.encode()))
                if answer[20:24] == address.packed:
                    return name
    return ""


def loopback(names: Collection[str] | None = None) -> str:
    """Return `lo`, or `lo0` where that is its name: macOS and the BSDs. gloo ends a rank that names another.

    Args:
        names: this machine's interfaces; asked of the system by default.
    """
    if names is None:
        names = []
        with contextlib.suppress(OSError):  # a sandbox may not tell
            names = [name for _, name in socket.if_nameindex()]
    return "lo0" if "lo0" in names and "lo" not in names else "lo"
