"""A Kubernetes API server: plain requests with bounded retries, and every refusal as one clear error.

Credentials and connections are those of `kube_login`; the official client's models are not used: they take long to
import, and our objects are dictionaries.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import msgspec
import urllib3

from stackctl.engines import kube_headers, kubeconfig
from stackctl.engines.kube_errors import ApiError, BrokenOff, Silent, decoded, no_object, refused, unreachable
from stackctl.engines.kube_login import Login, login
from stackctl.engines.kube_paths import address, kind_of
from stackctl.errors import InvalidInput, StackError

Object = dict[str, Any]

JSON = "application/json"

READ_SECONDS = 15.0
"""To wait for a connection, and for the next bytes of an answer; STACK_KUBE_TIMEOUT sets both."""

SILENT_SECONDS = 60.0
"""The same for a stream, where nothing may happen for a while."""

TRIES, FIRST_TRIES, PATIENCE = 6, 3, 45.0
"""A request is tried so often, fewer times while nothing has answered yet, and only within so many seconds."""

SERVED_SECONDS = 10.0
"""Which versions of groups a cluster serves is remembered for so long: for one submission."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_WORTH_A_RETRY = (429, 500, 502, 503, 504)


T = TypeVar("T")

_DECODING = threading.Lock()
"""Held while a type is decoded: msgspec studies it at its first use, and two threads at that crash the interpreter."""


class _Items(msgspec.Struct, Generic[T]):
    items: list[T]


class _Version(msgspec.Struct, rename="camel"):
    group_version: str


class _Group(msgspec.Struct, rename="camel"):
    name: str
    preferred_version: _Version


class _Groups(msgspec.Struct):
    groups: list[_Group]


class Cluster:
    """One cluster, as the person's own identity; safe to use from several threads."""

    def __init__(self, context: str = "") -> None:
        """Read the kubeconfig, or inside a pod its service account; nothing is sent yet.

        Raises:
            MissingHere: There is no kubeconfig, or its credentials cannot be had.
        """
        self.context = context
        self._patience = _seconds(os.environ)
        self._login, self._renewing = login(context), threading.Lock()
        self.host = self._login.host
        self._as = kubeconfig.acting_as(os.environ, context)
        self._answered = False
        self._served: tuple[dict[str, str], float] = {}, 0.0
        self.calls = 0
        """Requests sent so far, repeated ones counted again."""

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """An object, or None if there is none."""
        try:
            return _object(self._json("GET", address(kind, namespace, name)))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def served(self, group: str) -> str:
        """The group with the version that the cluster prefers, as `batch/v1`; empty if it has no such group."""
        found, until = self._served
        if group not in found or time.monotonic() > until:  # one that is not there may be installed at any moment
            rows = self.read("apis", _Groups).groups
            found = {row.name: row.preferred_version.group_version for row in rows}
            self._served = found, time.monotonic() + SERVED_SECONDS
        return found.get(group, "")

    def items(self, kind: str, of: type[T], namespace: str = "", **query: str) -> list[T]:
        """The objects of a kind, with the fields that `of` names; without a namespace, of all namespaces."""
        return self.read(address(kind, namespace), _Items[of], **query).items  # type: ignore[valid-type]

    def read(self, path: str, of: type[T], *, accept: str = JSON, **query: str) -> T:
        """What the API server has under a path, with the fields that `of` names; the rest is not even decoded."""
        data = self._request("GET", path, query, accept=accept)
        try:
            with _DECODING:
                return msgspec.json.decode(data, type=of)
        except (msgspec.DecodeError, RecursionError):
            raise no_object() from None

    def create(self, manifest: Object, *, dry_run: bool = False) -> tuple[Object, list[str]]:
        """Create an object; return it, and what the cluster warns of.

        Raises:
            ApiError: With status 409 if there is one of the name; it may be ours, from a try whose answer was lost.
        """
        warnings: list[str] = []
        query = {"fieldManager": "stackctl", "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        path = address(kind_of(manifest), manifest["metadata"].get("namespace", ""))
        return _object(self._json("POST", path, query, manifest, warnings)), warnings

    def apply(self, manifest: Object) -> Object:
        """Create an object, or make the one that is there as it says; return it as it is then."""
        metadata = manifest["metadata"]
        path = address(kind_of(manifest), metadata["namespace"], metadata["name"])
        query = {"fieldManager": "stackctl", "fieldValidation": "Strict", "force": "true"}
        kind = {"Content-Type": "application/apply-patch+yaml"}  # of which JSON is a part
        return _object(_decode(self._request("PATCH", path, query, manifest, extra=kind)))

    def delete(self, kind: str, name: str, namespace: str, *, uid: str = "") -> bool:
        """Delete an object and, in the background, what it owns; False if there is none.

        Args:
            uid: Only if it is this one.
        """
        options: Object = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}
        try:
            self._json("DELETE", address(kind, namespace, name), {}, options)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    @contextmanager
    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        """A stream of lines, without their ends, as of a log.

        Raises:
            ApiError: The request was refused.
            BrokenOff: There was no answer, or the stream ended before its end.
        """
        try:
            response = self._send("GET", path, query, None, SILENT_SECONDS)
        except urllib3.exceptions.HTTPError as error:
            raise BrokenOff(unreachable(self.host, self._login.proxy, error).message) from error
        try:
            if response.status >= 400:
                raise refused(self.host, response.status, response.data)
            yield _lines(response)
        finally:
            response.close()
            response.release_conn()

    def opened(
        self, path: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        """The answer to one request, unread, its connection with it.

        Raises:
            ApiError: The request was refused, or there was no answer.
        """
        try:
            response = self._send("GET", path, query, None, self._patience, "*/*", headers)
            if response.status >= 400:
                raise refused(self.host, response.status, response.data)
        except urllib3.exceptions.HTTPError as error:
            raise unreachable(self.host, self._login.proxy, error) from error
        return response

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        warnings: list[str] | None = None,
    ) -> Object:
        return _decode(self._request(method, path, query, body, warnings))

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        warnings: list[str] | None = None,
        accept: str = JSON,
        extra: Mapping[str, str] | None = None,
    ) -> bytes:
        """One request with its retries, and what it is answered with."""
        begun, pause, tried = time.monotonic(), _FIRST_PAUSE, 0
        while True:
            tried, wait = tried + 1, 0.0
            try:
                response = self._send(method, path, query or {}, body, self._patience, accept, extra)
                data = response.data
            except urllib3.exceptions.HTTPError as error:
                failure = unreachable(self.host, self._login.proxy, error)
                tries = TRIES if self._answered else FIRST_TRIES
            else:
                self._answered = True
                if response.status < 400:
                    if warnings is not None:
                        warnings += kube_headers.warnings(response.headers)
                    return data
                failure, tries = refused(self.host, response.status, data), TRIES
                wait = kube_headers.retry_after(response.headers)
                if response.status not in _WORTH_A_RETRY and failure.reason != "Conflict":
                    raise failure
            wait = min(max(wait, pause * random.uniform(0.8, 1.2)), _LONGEST_PAUSE)  # noqa: S311 - only spreads load
            if tried == tries or time.monotonic() - begun + wait > PATIENCE:
                raise failure
            time.sleep(wait)
            pause *= 2

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | Sequence[tuple[str, str]],
        body: Object | None,
        read: float,
        accept: str = JSON,
        extra: Mapping[str, str] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """One request; if it is refused for its credentials, once more with new ones: they may have been rotated."""
        used = self._login
        response = self._sent(used, method, path, query, body, read, accept, extra)
        if response.status != 401:
            return response
        response.close()
        return self._sent(self._renewed(used), method, path, query, body, read, accept, extra)

    def _renewed(self, refused: Login) -> Login:
        """The credentials read anew, by the first of several requests that are refused at once."""
        with self._renewing:
            if self._login is refused:
                try:
                    self._login = login(self.context)
                except StackError as error:
                    raise ApiError(error.message, status=401, where=error.where, hint=error.hint) from None
            return self._login

    def _sent(
        self,
        used: Login,
        method: str,
        path: str,
        query: Mapping[str, str] | Sequence[tuple[str, str]],
        body: Object | None,
        read: float,
        accept: str,
        extra: Mapping[str, str] | None,
    ) -> urllib3.BaseHTTPResponse:
        headers = kube_headers.of_request(accept, extra or {}, self._as, used.token())
        if body is not None:
            headers.setdefault("Content-Type", JSON)
        self.calls += 1
        url = f"{self.host}/{path}" + (f"?{urlencode(query)}" if query else "")
        return used.pool.request(
            method,
            url,
            body=None if body is None else msgspec.json.encode(body),
            headers=headers,
            timeout=urllib3.Timeout(connect=self._patience, read=read),
            retries=False,
            redirect=False,
            preload_content=False,
        )


def _seconds(env: Mapping[str, str]) -> float:
    text = env.get("STACK_KUBE_TIMEOUT") or str(READ_SECONDS)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value < float("inf"):
        return value
    raise InvalidInput("must be a number of seconds above 0", where=f"STACK_KUBE_TIMEOUT={text}")


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    try:
        for chunk in response.stream(65_536, decode_content=True):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
    except urllib3.exceptions.ReadTimeoutError as error:
        raise Silent("nothing came from the cluster's stream for a while") from error
    except urllib3.exceptions.HTTPError as error:
        raise BrokenOff("the stream from the cluster broke off") from error
    if rest:
        yield rest


def _decode(data: bytes) -> Object:
    found = decoded(data)
    if found is None:
        raise no_object()
    return found


def _object(found: Object) -> Object:
    """What was answered, if it is an object of the cluster's."""
    if isinstance(found.get("metadata"), dict):
        return found
    raise no_object()
