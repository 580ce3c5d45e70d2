"""A door to this machine's Docker engine, for tests of who comes in by which."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from pathlib import Path

from stackctl.engines import docker_api


class Front:
    """A door to this machine's engine, by its socket's path or with TLS: it counts who comes in, and may be shut."""

    def __init__(self, listening: socket.socket, tls: ssl.SSLContext | None = None, *, deaf: bool = False) -> None:
        self.came = 0
        self._engine, self._deaf = docker_api.host().url.removeprefix("unix://"), deaf
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
        engine = socket.socket(socket.AF_UNIX)
        engine.connect(self._engine)
        self._open.add(engine)
        with guest, engine, contextlib.suppress(OSError):
            if self._tls is None:
                back = threading.Thread(target=_copy, args=(engine, guest), daemon=True)
                back.start()
                _copy(guest, engine)
                back.join()
            else:
                self._lead_tls(guest, engine, self._tls)

    @staticmethod
    def _lead_tls(guest: socket.socket, engine: socket.socket, tls: ssl.SSLContext) -> None:
        with tls.wrap_socket(guest, server_side=True) as inside:
            back = threading.Thread(target=_copy, args=(engine, inside), daemon=True)
            back.start()
            _copy(inside, engine)
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


def certificate(folder: Path) -> ssl.SSLContext:
    """Write ca.pem, cert.pem and key.pem of an engine on this machine; what it needs to let in those who have them."""
    made = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"), "-days", "2", "-subj", "/CN=engine"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "keyUsage=digitalSignature,keyCertSign"]
    argv = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *made]
    subprocess.run(argv, check=True, capture_output=True)
    (folder / "ca.pem").write_bytes((folder / "cert.pem").read_bytes())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    tls.load_verify_locations(folder / "ca.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    return tls
