"""A connection to the engine that the docker client would use, through the docker package."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from stackctl.engines import process
from stackctl.errors import CommandFailed, JobFailed, MissingHere

if TYPE_CHECKING:
    from docker import APIClient
    from docker.tls import TLSConfig
    from docker.types import CancellableStream
    from requests import Response

INSTALL = "install Docker Engine with buildx and compose, or use `--on local`"

_LAST_WORDS = 2.0
"""Seconds for a client that has let go of its connection to say why."""

_QUESTION_SECONDS = 60
"""How long the engine may take to answer what is no work."""

_WORK_SECONDS = 24 * 3600

_ALIVE_SECONDS = 30
"""What lies between us and an engine far away forgets a connection on which nothing comes; the client asks as often."""

_LONGEST = 1 << 17
"""Bytes of a line that are held until its end comes; the launcher's lines are shorter."""

_TLS_FILES = {"ca.pem": "ca", "cert.pem": "certificate", "key.pem": "key"}

T = TypeVar("T")


class EngineSilent(JobFailed):
    """The engine does not answer, or no more."""


class EngineRefused(JobFailed):
    """The engine does not do what it is asked for; the message has its words."""


class _Config(msgspec.Struct, rename={"headers": "HttpHeaders"}):
    headers: dict[str, str] | None = None


class Host(msgspec.Struct, frozen=True):
    """Where the engine is: `unix://`, `tcp://` or `ssh://`; and whether it is spoken to with TLS, with which files."""

    url: str
    tls: bool = False
    verify: bool = True
    ca: str = ""
    certificate: str = ""
    key: str = ""


def host() -> Host:
    """The engine that the client would use: it is asked, as it alone has all the rules.

    They are contexts, DOCKER_CONTEXT, DOCKER_HOST, DOCKER_TLS, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH. The package's
    own reading takes the default engine where a context is unknown, and other TLS settings than a context's.

    Raises:
        MissingHere: There is no client, or it knows no such engine.
    """
    mine = {name: value for name, value in os.environ.items() if name in ("HOME", "PATH") or name.startswith("DOCKER_")}
    return _host(tuple(mine.items()))


@functools.cache
def _host(_environment: tuple[tuple[str, str], ...]) -> Host:
    try:
        (row,) = json.loads(process.run(["docker", "context", "inspect"], hint=INSTALL))
    except CommandFailed as error:
        reason = (error.output.strip().splitlines() or ["it gave no reason"])[-1]
        raise MissingHere(
            f"the docker client knows no such engine: {reason}", hint="`docker context ls` shows those it knows"
        ) from None
    return read(row, os.environ)


def read(context: Mapping[str, Any], environ: Mapping[str, str]) -> Host:
    """The engine of a context, as `docker context inspect` shows it."""
    endpoint, stored = context["Endpoints"]["docker"], context["Storage"]["TLSPath"]
    # What belongs to no context the client has in memory only; it came from here.
    own = Path(environ.get("DOCKER_CERT_PATH") or _config(environ))
    folder = own if stored.startswith("<") else Path(stored, "docker")
    names, unverified = context["TLSMaterial"].get("docker", ()), bool(endpoint.get("SkipTLSVerify"))
    files = {field: str(folder / name) for name, field in _TLS_FILES.items() if name in names}
    return Host(endpoint["Host"], tls=bool(files) or unverified, verify=not unverified, **files)


def _config(environ: Mapping[str, str]) -> Path:
    """The folder of the client's settings; who has neither name nor HOME has none."""
    try:
        return Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    except RuntimeError:
        return Path(os.devnull)


def _headers() -> dict[str, str]:
    """What the client adds to each request, for what stands before the engine."""
    try:
        config = msgspec.json.decode((_config(os.environ) / "config.json").read_bytes(), type=_Config)
    except (OSError, msgspec.MsgspecError):
        return {}  # the client says so, and goes on
    return config.headers or {}


@contextmanager
def connected(*, patient: bool = False) -> Iterator[APIClient]:
    """Within the block, a connection to the engine.

    Args:
        patient: Wait for its answers: what it is asked for is work.

    Raises:
        MissingHere: There is no client, or it knows no such engine, or cannot be led to one behind ssh.
        EngineSilent: The engine does not answer, or no more.
        EngineRefused: It does not do what it is asked for.
    """
    found = host()
    from docker.errors import APIError, DockerException  # takes longer than `stackctl --help` may
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    with _address(found) as (url, heard):
        try:
            with _client(url, found, _WORK_SECONDS if patient else _QUESTION_SECONDS) as client:
                yield client
        except APIError as error:
            raise EngineRefused(f"the Docker engine says: {error.explanation or error}") from None
        except (DockerException, RequestException, HTTPError) as error:
            why = heard() or reason(error)
            raise EngineSilent(f"the Docker engine does not answer: {why} ({found.url})") from None


def _client(url: str, found: Host, timeout: int) -> APIClient:
    import docker
    from docker.constants import MINIMUM_DOCKER_API_VERSION
    from docker.utils import config

    # It would look for logins, which we need not, and give up on what the client only warns of.
    config.load_general_config = lambda *_: {"auths": {}}

    def made(version: str) -> APIClient:
        client = docker.APIClient(url, version, timeout, tls=_tls(found))
        client.trust_env = False  # REQUESTS_CA_BUNDLE would take the place of the engine's own CA
        client.headers.update(_headers())
        _keep_alive(client)
        return client

    if found not in _versions:
        with made(MINIMUM_DOCKER_API_VERSION) as first:
            answer = first.version(api_version=False)
        if "ApiVersion" not in answer:
            raise EngineSilent(f"what answers is no Docker engine ({found.url})")
        _versions[found] = answer["ApiVersion"]
    return made(_versions[found])


def _keep_alive(client: APIClient) -> None:
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection

    names = ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL")  # the second is macOS' word for the first
    often = [(socket.IPPROTO_TCP, getattr(socket, name), _ALIVE_SECONDS) for name in names if hasattr(socket, name)]
    options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *often]
    for adapter in client.adapters.values():
        if isinstance(adapter, HTTPAdapter):
            adapter.poolmanager.connection_pool_kw["socket_options"] = options


_versions: dict[Host, str] = {}
"""Of the engines' API."""


def _tls(found: Host) -> TLSConfig | bool:
    import urllib3
    from docker.tls import TLSConfig

    if not found.tls:
        return False
    if not found.verify:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the person has asked for it
    certificate = (found.certificate, found.key) if found.certificate and found.key else None
    return TLSConfig(client_cert=certificate, ca_cert=found.ca or None, verify=found.verify)


@contextmanager
def _address(found: Host) -> Iterator[tuple[str, Callable[[], str]]]:
    """Within the block, an address that the package can connect to, and what was said there if it cannot.

    For an engine behind ssh it is a socket of ours: each connection to it is carried on by the client. The package
    would need paramiko, and start a process for each request without waiting for its end.
    """
    if not found.url.startswith("ssh://"):
        yield found.url, str
        return
    running: list[subprocess.Popen[bytes]] = []
    argv = ["docker", "system", "dial-stdio"]
    with (
        tempfile.TemporaryDirectory(prefix="stackctl-") as folder,
        socket.socket(socket.AF_UNIX) as server,
        tempfile.TemporaryFile() as said,
    ):
        try:
            server.bind(f"{folder}/docker.sock")
        except OSError as error:  # a path of more than 100 bytes is none for a socket
            raise MissingHere(f"no socket can be made in {folder}: {error}", hint="set TMPDIR to another") from None
        server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        dialling = subprocess.Popen(
                            argv,
                            executable=process.find(argv[0]),
                            stdin=connection.fileno(),
                            stdout=connection.fileno(),
                            stderr=said.fileno(),
                            start_new_session=True,
                        )
                    running.append(dialling)

        def heard() -> str:
            for dialling in running:  # it says why when it has let go of the connection
                with contextlib.suppress(subprocess.TimeoutExpired):
                    dialling.wait(_LAST_WORDS)
            words = (os.pread(said.fileno(), 4096, 0).decode(errors="replace").strip().splitlines() or [""])[-1]
            # Where ssh ends before the question is written, the client tells of its pipe only, and not what ssh said.
            return (_said_by_client() or words) if "stdin to stream" in words else words

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"unix://{folder}/docker.sock", heard
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            for dialling in running:
                dialling.kill()
                dialling.wait()


def _said_by_client() -> str:
    """Why the client itself does not reach the engine; nothing if it does."""
    try:
        process.run(["docker", "version"], apart=True)
    except CommandFailed as error:
        return (error.output.strip().splitlines() or [""])[-1]
    return ""


def reason(error: BaseException) -> str:
    """The innermost cause: what requests and urllib3 wrap around it says nothing to a person."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        if isinstance(inner, TimeoutError):
            return "it took too long"
        error, inner = inner, inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__


def output(client: APIClient, container: str, what: str) -> CancellableStream[tuple[int, bytes]]:
    """What a container prints, as it comes: 1 or 2, for standard output or error, and bytes.

    The package's own functions mix the two, or wait for a second piece before they give the first of a TLS connection.

    Args:
        what: `attach`, for all from its start on, or `logs`, for what it has printed as well.

    Source: https://docs.docker.com/reference/api/engine/version/v1.47/#tag/Container/operation/ContainerAttach
    """
    from docker.types import CancellableStream

    call, ways = {"attach": ("POST", {"stream": 1}), "logs": ("GET", {"follow": 1})}[what]
    response = ask(client, call, container, what, stdout=1, stderr=1, **ways)

    def frames() -> Iterator[tuple[int, bytes]]:
        while len(header := response.raw.read(8)) == 8:
            kind, size = struct.unpack(">BxxxL", header)
            yield kind, response.raw.read(size)

    return CancellableStream(frames(), response)


def whole_lines(pieces: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The same output, cut at the ends of lines: the engine cuts a line each 16 KiB, and others' would come between."""
    held: dict[int, bytes] = {}
    for kind, data in pieces:
        lines, end, rest = (held.pop(kind, b"") + data).rpartition(b"\n")
        if len(rest) < _LONGEST:
            held[kind], rest = rest, b""
        if lines or end or rest:
            yield kind, lines + end + rest
    yield from ((kind, rest) for kind, rest in held.items() if rest)


def write(descriptor: int, data: bytes) -> None:
    """Write all of it, also to a terminal or pipe that another of its users has made non-blocking."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def ask(client: APIClient, call: str, container: str, what: str, **ways: int | str) -> Response:
    """The engine's answer about a container, of which no more than the header has been read."""
    from docker.errors import create_api_error_from_http_exception
    from requests import HTTPError

    url = f"{client.base_url}/v{client.api_version}/containers/{container}/{what}"
    response = client.request(call, url, params=ways, stream=True, timeout=None)
    try:
        response.raise_for_status()
    except HTTPError as error:
        raise create_api_error_from_http_exception(error) from error
    return response


def in_background(items: Iterable[T]) -> SimpleQueue[T | None]:
    """What comes out of `items`, put into a queue by a thread of its own; None after the last."""
    queue: SimpleQueue[T | None] = SimpleQueue()

    def put() -> None:
        with contextlib.suppress(Exception):  # the reader sees that its end is missing
            for item in items:
                queue.put(item)
        queue.put(None)

    threading.Thread(target=put, daemon=True).start()
    return queue


def hang_up(stream: CancellableStream[T]) -> None:
    """Close a stream, whoever is reading it."""
    with contextlib.suppress(AttributeError, OSError):  # it has ended already
        stream.close()
