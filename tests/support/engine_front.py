"""A door to this machine's Docker engine, for tests of who comes in by which."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

from stackctl.engines import docker_api
from tests.support import front


class Front(front.Front):
    """A door to this machine's engine, by its socket's path or with TLS."""

    def __init__(self, listening: socket.socket, tls: ssl.SSLContext | None = None, *, deaf: bool = False) -> None:
        engine = docker_api.host().url.removeprefix("unix://")  # now: a test then names this door in its place

        def connect() -> socket.socket:
            found = socket.socket(socket.AF_UNIX)
            found.connect(engine)
            return found

        super().__init__(listening, connect, tls, deaf=deaf)


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
