"""A port of this machine or container over standard input and output, for a port that is forwarded from elsewhere.

`python -P -m stackrt.launch.relay PORT`: what comes in goes to the port, and its answers go out. Standard library only.
"""

import os
import socket
import sys
import threading
from contextlib import suppress

CHUNK = 65_536


def main() -> int:
    """Carry one connection; return 1 if nobody listens."""
    try:
        connection = socket.create_connection(("localhost", int(sys.argv[1])))
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    threading.Thread(target=_send, args=(connection,), daemon=True).start()
    with suppress(OSError):
        while data := connection.recv(CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    return 0


def _send(connection: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(0, CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    sys.exit(main())
