"""Requests to an API server, with a token, over one connection."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from pathlib import Path
from typing import Any


class Api:
    """A connection to an API server."""

    def __init__(self, server: str, certificate: Path, token: str) -> None:
        self.address = urllib.parse.urlsplit(server).netloc
        self.context = ssl.create_default_context(cafile=str(certificate))
        self.headers = {"Authorization": f"Bearer {token}"}
        self.connection = http.client.HTTPSConnection(self.address, context=self.context, timeout=30)

    def close(self) -> None:
        self.connection.close()

    def request(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """The answer's content; raises OSError, or ApiError for an answer that is no success."""
        content = None if body is None else json.dumps(body)
        headers = {**self.headers, "Content-Type": kind}
        try:
            answer, text = self._exchange(method, path, content, headers)
        except http.client.RemoteDisconnected:  # it had been idle for long, and the server has closed it
            answer, text = self._exchange(method, path, content, headers)
        if answer.status >= 300:
            raise ApiError(answer.status, f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text) if text.startswith(("{", "[")) else text

    def _exchange(
        self, method: str, path: str, content: str | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, str]:
        try:
            self.connection.request(method, path, content, headers)
            answer = self.connection.getresponse()
            return answer, answer.read().decode()
        except (OSError, http.client.HTTPException):
            self.connection.close()  # the next request opens another
            raise


class ApiError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
