"""What every request passes: its id, the token, bounds of size and time, the count, the log, and the server's end."""

import asyncio
import hmac
import json
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stackrt.serve import options
from stackrt.serve.asked import RequestError
from stackrt.serve.options import Options
from stackrt.serve.watch import Watch
from stackrt.train.errors import BadInputError

Scope = dict[str, Any]
Message = dict[str, Any]

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
FAILED = "the server has failed; see its log"
OPEN = ("/health", "/metrics", "/v2/health")
"""Paths that need no token: probes and Prometheus have none."""
QUIET = ("/health", "/metrics", "/v2/health")
"""Paths whose good answers are not logged."""


def say(event: str, **more: Any) -> None:
    """Print one line of JSON."""
    row = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **more}
    with suppress(OSError):  # a full disk, or nobody who reads it: requests must be answered all the same
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


@dataclass
class State:
    """How the server fares.

    Attributes:
        draining: It has been asked to end, and still answers.
        leaving: Another worker has the socket: connections that are open are asked to come again.
        healthy: Whether what computes is alive.
    """

    draining: bool = False
    leaving: bool = False
    healthy: Callable[[], bool] = lambda: True


class Guard:
    """Around the application.

    Args:
        app: The application.
        o: The server's options.
        state: How the server fares.
        watch: What is counted.
        refuse: An error as this application's clients know it.
    """

    def __init__(
        self, app: Any, o: Options, state: State, watch: Watch, refuse: Callable[[RequestError], dict[str, Any]]
    ) -> None:
        self._app, self._o, self._state, self._watch, self._refuse = app, o, state, watch, refuse
        self._token, self._token_time = options.token(o.token_file), 0.0

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _ID.fullmatch(given) else uuid.uuid4().hex
        notes: dict[str, Any] = {}
        scope["state"] = {**scope.get("state", {}), "notes": notes, "id": request_id}
        status = 0

        async def put(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [(b"x-request-id", request_id.encode())]
                if self._state.draining or self._state.leaving:
                    more.append((b"connection", b"close"))  # the next request goes to another server
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        self._watch.running.inc()
        try:
            self._allowed(scope["path"], headers.get(b"authorization", b""))
            body = await self._body(headers, receive)
            await self._app(scope, _replayed(body, receive), put)
        except RequestError as error:
            if not status:
                await answer(put, error.status, self._refuse(error), error.retry)
        except (asyncio.CancelledError, _GoneError):
            status = status or 499
        except Exception:  # ours: the client gets a sentence, the log the traceback
            said = traceback.format_exc(limit=-3)
            say("error", request=request_id, path=scope["path"], traceback=said)
            if not status:
                await answer(put, 500, self._refuse(RequestError(FAILED, 500)))
        finally:
            self._watch.running.dec()
            self._note(scope, status, request_id, time.monotonic() - began, notes)

    def _note(self, scope: Scope, status: int, request_id: str, seconds: float, notes: dict[str, Any]) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._watch.requests.labels(route, str(status)).inc()
        self._watch.seconds.labels(route).observe(seconds)
        if status >= 400 or not scope["path"].startswith(QUIET):
            client = (scope.get("client") or ("",))[0]
            say("request", request=request_id, method=scope["method"], path=scope["path"][:200], status=status,
                seconds=round(seconds, 4), client=client, **notes)  # fmt: skip

    def _allowed(self, path: str, given: bytes) -> None:
        if self._o.token_file is None or path.startswith(OPEN):
            return
        try:  # a Secret that is changed changes the file
            changed = self._o.token_file.stat().st_mtime
            if changed != self._token_time:
                self._token, self._token_time = options.token(self._o.token_file), changed
        except (OSError, BadInputError):
            pass  # the one that was read stays
        kind, _, word = given.partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(word.strip(), self._token.encode()):
            raise RequestError("send the server's token: Authorization: Bearer …", 401, code="invalid_api_key")

    async def _body(self, headers: dict[bytes, bytes], receive: Any) -> bytes:
        most = int(self._o.max_body * (1 << 20))
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > most:
            raise RequestError(f"the request is larger than {self._o.max_body:g} MiB", 413)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._o.read_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise RequestError(f"the request is larger than {self._o.max_body:g} MiB", 413)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise RequestError(f"the request did not come within {self._o.read_timeout:g} s", 408) from None


class _GoneError(Exception):
    """The client has hung up."""


def _replayed(body: bytes, receive: Any) -> Any:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            found: Message = await receive()
            return found
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def answer(send: Any, status: int, row: dict[str, Any], retry: int = 0) -> None:
    """Send a JSON answer."""
    body = json.dumps(row).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if retry:
        headers.append((b"retry-after", str(retry).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413):
        headers.append((b"connection", b"close"))  # what is left of the request is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
