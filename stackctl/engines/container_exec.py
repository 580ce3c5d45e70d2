"""Programs beside the main one of a container that runs, through the docker package.

Source: https://docs.docker.com/reference/api/engine/version/v1.47/#tag/Exec
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING

from stackctl.engines.docker_api import connected
from stackctl.engines.wire import Session, Wire
from stackctl.errors import JobFailed, MissingHere

if TYPE_CHECKING:
    from docker import APIClient

_END_SECONDS = 10.0
"""How long a program may take to end once it has closed its output."""

_HEADER = 8


def find(labels: Mapping[str, str]) -> str | None:
    """The id of a container that runs and has these labels; None if there is none."""
    with connected() as client:
        rows = client.containers(filters={"label": [f"{name}={value}" for name, value in labels.items()]})
        return str(rows[0]["Id"]) if rows else None


class Executed(Session):
    """A program in a container; what it prints comes in frames, unless it has a terminal."""

    def __init__(self, container: str, argv: Sequence[str], *, tty: bool) -> None:
        """Start it.

        Raises:
            MissingHere: The container does not run any more.
            EngineRefused, EngineSilent: The engine does not start it.
        """
        from docker.errors import APIError

        self._tty, self._rest = tty, b""
        with ExitStack() as stack:
            self._client = client = stack.enter_context(connected(patient=True))
            try:
                self._key = client.exec_create(container, list(argv), stdin=True, tty=tty)["Id"]
            except APIError as error:
                if error.status_code not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                    raise
                raise MissingHere("the container does not run any more") from None
            super().__init__(_started(client, self._key, tty=tty))
            self._stack = stack.pop_all()

    def decode(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The output in what has come."""
        if self._tty:
            yield 1, data
            return
        self._rest += data
        while len(self._rest) >= _HEADER:
            end = _HEADER + int.from_bytes(self._rest[4:_HEADER], "big")
            if len(self._rest) < end:
                return
            yield self._rest[0], self._rest[_HEADER:end]
            self._rest = self._rest[end:]

    def send(self, data: bytes) -> None:
        """Give it input."""
        self.wire.put(data)

    def end(self) -> None:
        """Its input has ended."""
        self.wire.end()

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size now."""
        from docker.errors import APIError

        with contextlib.suppress(APIError):  # it has just ended, or not quite started
            self._client.exec_resize(self._key, rows, columns)

    def exit_code(self) -> int:
        """Its exit code."""
        deadline = time.monotonic() + _END_SECONDS
        while True:
            found = self._client.exec_inspect(self._key)
            if found["ExitCode"] is not None and not found["Running"]:
                return int(found["ExitCode"])
            if time.monotonic() > deadline:
                raise JobFailed("it has closed its output and goes on in the container")
            time.sleep(0.05)

    def close(self) -> None:
        """Let go of it."""
        self.wire.close()
        self._stack.close()


def _started(client: APIClient, key: str, *, tty: bool) -> Wire:
    from docker.errors import create_api_error_from_http_exception
    from requests import HTTPError

    response = client.request(
        "POST",
        f"{client.base_url}/v{client.api_version}/exec/{key}/start",
        json={"Detach": False, "Tty": tty},
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        stream=True,
        timeout=None,
    )
    try:
        response.raise_for_status()
    except HTTPError as error:
        raise create_api_error_from_http_exception(error) from error
    return Wire.of(response.raw)
