"""A door to a server, for tests of who comes in, and of what happens when it is shut."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable


class Front:
    """A door to a server: it counts who comes in, and may be shut.

    Args:
        listening: Where it is; listens from now on.
        connect: Gives a connection to the server.
        tls: What it asks of its guests.
        deaf: It lets in, and leads nobody on.
    """

    def __init__(
        self,
        listening: socket.socket,
        connect: Callable[[], socket.socket],
        tls: ssl.SSLContext | None = None,
        *,
        deaf: bool = False,
    ) -> None:
        self.came = 0
        self._connect, self._deaf = connect, deaf
        self._listening, self._tls, self._open = listening, tls, set[socket.socket]()
        listening.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                guest, _ = self._listening.accept()
                self._open.add(guest)
                self.came += 1
                if not self._deaf:
                    threading.Thread(target=self._lead, args=(guest,), daemon=True).start()

    def _lead(self, guest: socket.socket) -> None:
        server = self._connect()
        self._open.add(server)
        with guest, server, contextlib.suppress(OSError):
            if self._tls is None:
                back = threading.Thread(target=_copy, args=(server, guest), daemon=True)
                back.start()
                _copy(guest, server)
                back.join()
            else:
                self._lead_tls(guest, server, self._tls)

    @staticmethod
    def _lead_tls(guest: socket.socket, server: socket.socket, tls: ssl.SSLContext) -> None:
        with tls.wrap_socket(guest, server_side=True) as inside:
            back = threading.Thread(target=_copy, args=(server, inside), daemon=True)
            back.start()
            _copy(inside, server)
            back.join()

    def shut(self) -> None:
        for each in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
