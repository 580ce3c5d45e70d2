"""What comes between a person and the API server: a proxy that spoils the n-th request, and a way that is shut."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support.front import Front

FAULTS = {
    "conflict": (409, {"reason": "Conflict"}),
    "exists": (409, {"reason": "AlreadyExists"}),
    "busy": (429, {"reason": "TooManyRequests"}),
    "broken": (500, {"reason": "InternalError"}),
}
"""Answers that the API server never sees the request of."""

KINDS = (*FAULTS, "reset", "lost", "silent")
"""`reset` ends the connection before the request is passed on, `lost` after it; `silent` answers too late.
Beside these, `interrupts` sends this process SIGINT when the API server has done what was asked, and then answers."""


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to an API server, but for the chosen one."""

    daemon_threads = True

    def __init__(self, server: str, certificate: str, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.token = urlsplit(server), token
        self.trust = ssl.create_default_context(cafile=certificate)
        self.released = threading.Event()
        self._lock = threading.Lock()
        self.spoil(0, "")

    def spoil(self, number: int, kind: str) -> None:
        """Spoil the request of this number from now on, counted from 1."""
        self.released.set()
        self.released = threading.Event()
        self.count, self.number, self.kind = 0, number, kind

    def next_fault(self) -> str:
        with self._lock:
            self.count += 1
            return self.kind if self.count == self.number else ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FaultyProxy
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.next_fault()
        if fault in FAULTS:
            status, said = FAULTS[fault]
            answer = json.dumps({"kind": "Status", "message": "spoiled by the test", **said}).encode()
            self.answer(status, answer, {"Retry-After": "1"} if status == 429 else {})
            return
        if fault == "reset":
            self.close_connection = True
            self.connection.close()
            return
        if fault == "silent":
            self.server.released.wait(60)
            self.close_connection = True
            return
        status, answer = self.passed_on(body)
        if fault == "interrupts":
            os.kill(os.getpid(), signal.SIGINT)
        if fault == "lost":
            self.close_connection = True
            self.connection.close()
            return
        self.answer(status, answer, {})

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - names of the standard library

    def passed_on(self, body: bytes) -> tuple[int, bytes]:
        target = self.server.target
        upstream = http.client.HTTPSConnection(
            target.hostname or "", target.port, context=self.server.trust, timeout=60
        )
        headers = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection")}
        headers["Authorization"] = f"Bearer {self.server.token}"
        upstream.request(self.command, self.path, body or None, headers)
        found = upstream.getresponse()
        answer = found.status, found.read()
        upstream.close()
        return answer

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


class Way:
    """A port of this machine that leads to an API server while it is open; what goes through it is not looked at."""

    def __init__(self, server: str) -> None:
        target = urlsplit(server)
        self._target = target.hostname or "", target.port or 443
        self.port = 0
        self.open()

    def open(self) -> None:
        """Let through who connects, at the port of before."""
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        self._front = Front(listening, lambda: socket.create_connection(self._target))

    def shut(self) -> None:
        """Break all connections, and refuse new ones."""
        self._front.shut()
