"""Hold the port of a server that is made anew at times: who comes meanwhile waits, and is not turned away.

    python -m stackrt.serve.door NAME --port 8000
    python -m stackrt.serve MODEL --door NAME              in the same network

A server asks for the socket over an abstract address, which belongs to a network namespace as ports do: no file, and
nobody from outside can ask. The socket is open as long as this process lives; it does nothing else. Linux only.
"""

import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from stackrt.serve import options
from stackrt.signals import handled
from stackrt.train.command_line import Parser
from stackrt.train.errors import BadInputError, TrainerError, complain

PATIENCE = 30.0
"""Seconds that a server waits for its door, which may be starting just now."""
_TICK = 0.2


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the socket to whoever asks, until a signal; returns the exit code."""
    stopped: list[int] = []
    try:
        with handled(stopped.append):
            parser = Parser(prog="python -m stackrt.serve.door", description=__doc__, allow_abbrev=False)
            parser.add_argument("name", help="what servers call it")
            parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
            parser.add_argument("--port", type=int, default=options.PORT, help="its port; 0 for any that is free")
            o = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
            with bound(o.host, o.port) as held, socket.socket(socket.AF_UNIX) as asked:
                try:
                    asked.bind(_address(o.name))
                except OSError as error:
                    raise BadInputError(f"{o.name}: {error.strerror}; another holds a door of this name") from None
                asked.listen()
                asked.settimeout(_TICK)
                print(f"holds {o.host}:{held.getsockname()[1]}", flush=True)
                while not stopped:
                    with suppress(OSError), asked.accept()[0] as server:  # one that has gone, or nobody for a while
                        socket.send_fds(server, [b"."], [held.fileno()])
        return 0
    except TrainerError as error:
        return complain(error)


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address, at which nobody listens yet.

    Raises:
        BadInputError: The port is in use, or not ours to take.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except UnicodeError:
        raise BadInputError(f"--host {host}: is no name of a host") from None
    except (OSError, OverflowError) as error:
        raise taken(host, port, error) from None
    return made


def taken(host: str, port: int, error: Exception) -> BadInputError:
    """The port is in use, or not ours to take."""
    why = getattr(error, "strerror", None) or str(error)
    return BadInputError(f"--host {host} --port {port}: {why}; choose another port, 0 for any")


def through(name: str) -> socket.socket:
    """The socket that a door of this network holds.

    Raises:
        BadInputError: There is no such door.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(PATIENCE)
                asking.connect(_address(name))
                _, found, _, _ = socket.recv_fds(asking, 1, 1)
                if found:
                    return socket.socket(fileno=found[0])
        except OSError:
            pass
        if time.monotonic() > end:
            said = "nobody holds a door of this name in this network; start `python -m stackrt.serve.door` before"
            raise BadInputError(f"--door {name}: {said}")
        time.sleep(_TICK)


def _address(name: str) -> bytes:
    return b"\0stackrt.serve.door." + os.fsencode(name)


if __name__ == "__main__":
    sys.exit(main())
