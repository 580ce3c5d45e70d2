"""Host names to addresses, without stopping the loop."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable

from stackrt.launch.loop import READ, Loop

Address = tuple[str, int] | tuple[str, int, int, int]
Found = list[tuple[int, Address]] | str
"""Address families with what `connect` takes, or why there is none."""


def resolve(loop: Loop, host: str, port: int, done: Callable[[Found], None]) -> None:
    """Look a name up, afresh each time, and pass the result on in a later round of the loop.

    `getaddrinfo` can block for half a minute when a cluster's DNS is down, and nothing interrupts it. So it runs in a
    short-lived thread; the loop stays the only one that touches anything else.
    """
    with contextlib.suppress(OSError):
        numeric = _look_up(host, port, socket.AI_NUMERICHOST)
        loop.after(0, lambda: done(numeric))
        return
    readable, writable = os.pipe()
    results: list[Found] = []

    def look_up() -> None:
        try:
            results.append(_look_up(host, port, 0))
        except OSError as error:
            never = getattr(error, "errno", None) in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
            results.append("name does not resolve yet" if never else f"name lookup fails: {error.strerror}")
        except UnicodeError:
            results.append("not a host name")
        os.close(writable)

    def finish() -> None:
        loop.unwatch(readable)
        os.close(readable)
        done(results[0])

    loop.watch(readable, READ, finish)
    threading.Thread(target=look_up, daemon=True).start()


def _look_up(host: str, port: int, flags: int) -> Found:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(int(family), address) for family, _, _, _, address in found]  # type: ignore[misc]
