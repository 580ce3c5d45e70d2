"""Credentials for a cluster, and the connections that are opened with them.

Those that stand in the kubeconfig as they are, or in a pod, are read here in milliseconds. For all others, and through
a proxy, there is the official client (`kube_client`), whose import alone takes longer than most requests.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import urllib3

from stackctl.engines import kubeconfig
from stackctl.errors import InvalidInput, MissingHere

CONNECTIONS = 32
"""To one cluster at once."""

_TOKEN_SECONDS = 60.0
"""After which a file with a token is read anew: a pod's is replaced now and then."""

_CLUSTER = {
    "server",
    "certificate-authority",
    "certificate-authority-data",
    "tls-server-name",
    "disable-compression",
    "extensions",
}
_USER = {
    "token",
    "tokenFile",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    *kubeconfig.IMPERSONATION,
}
"""What can be used as it stands; a key with a value that is not among these is for the official client."""


class Login(Protocol):
    """Credentials as they were read, and the connections that are opened with them.

    `host` is the API server's address, and `proxy` that of the proxy before it, without the password that it may hold.
    """

    host: str
    pool: urllib3.PoolManager
    proxy: str

    def token(self) -> str | None:
        """What goes into the header `Authorization`; had anew where it has expired."""


def login(context: str) -> Login:
    """The credentials of a context of the kubeconfig, of the current one for "", or inside a pod its own.

    Raises:
        MissingHere: There is no kubeconfig, or its credentials cannot be had.
        InvalidInput: The cluster's address is none.
    """
    found: Login | None = static(context, os.environ)
    if found is None:
        from stackctl.engines import kube_client

        found = kube_client.Login(context)
    if not found.host.startswith(("https://", "http://")):
        hint = "it is the cluster's `server`, and looks like https://HOST:6443"
        where = f"kubeconfig: {found.host or '(empty)'}"
        raise InvalidInput("is no address of an API server", where=where, hint=hint)
    return found


def static(context: str, env: Mapping[str, str]) -> Static | None:
    """Credentials that can be used as they stand; None where only the official client can, or can say what is wrong."""
    try:
        files = kubeconfig.filled(env)
        given = _of_files(files, context) if files else _of_pod(env)
        if given is None or _by_proxy(given.host):
            return None
        return Static(given)
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None


class _Given(NamedTuple):
    """What was found. PEM texts; `certificate` with its key."""

    host: str
    authority: str = ""
    certificate: str = ""
    server_name: str = ""
    token: str = ""
    token_file: Path | None = None


class Static:
    """A token, a file with one, or a certificate."""

    proxy = ""

    def __init__(self, given: _Given) -> None:
        self.host = given.host.rstrip("/")
        # With urllib3's own settings, as those of the official client.
        context = urllib3.util.ssl_.create_urllib3_context()
        if given.authority:
            with _usable("certificate-authority"):
                context.load_verify_locations(cadata=given.authority)
        else:
            context.load_default_certs()
        if "ENCRYPTED" in given.certificate:
            hint = "decrypt it with `openssl pkey`, or have your cluster's provider make another"
            raise MissingHere(
                "the kubeconfig's client-key is encrypted, and nobody is asked for its password", hint=hint
            )
        if given.certificate:
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file, _usable("client-certificate or client-key"):
                file.write(given.certificate)  # only its user can read it
                file.flush()
                context.load_cert_chain(file.name)
        named: dict[str, Any] = {"server_hostname": given.server_name} if given.server_name else {}
        self.pool = urllib3.PoolManager(maxsize=CONNECTIONS, ssl_context=context, **named)
        self._token, self._file, self._read = given.token, given.token_file, time.monotonic()

    def token(self) -> str | None:
        """It is read again each minute."""
        if self._file and time.monotonic() > self._read + _TOKEN_SECONDS:
            with suppress(OSError):  # that which was read stays good for a while
                self._token = self._file.read_text().strip() or self._token
            self._read = time.monotonic()
        return f"Bearer {self._token}" if self._token else None


@contextmanager
def _usable(what: str) -> Iterator[None]:
    """Within the block, an error of OpenSSL is one of the kubeconfig's."""
    try:
        yield
    except ssl.SSLError as error:
        why = (error.reason or "this is none that OpenSSL can read").replace("_", " ").lower()
        hint = "get a new kubeconfig from your cluster's provider; `kubectl config view --raw` shows this one"
        raise MissingHere(f"the kubeconfig's {what} cannot be used: {why}", hint=hint) from None


_Documents = list[tuple[Path, dict[Any, Any]]]


def _of_files(files: list[Path], context: str) -> _Given | None:
    documents = [(path.parent, kubeconfig.document(path)) for path in files]
    name = context or next((row["current-context"] for _, row in documents if row.get("current-context")), "")
    _, place = _first(documents, "contexts", "context", name)
    above, cluster = _first(documents, "clusters", "cluster", place["cluster"])
    beside, user = _first(documents, "users", "user", place["user"])
    if any(value for key, value in cluster.items() if key not in _CLUSTER):
        return None
    if any(value for key, value in user.items() if key not in _USER):
        return None
    certificate, key = _pem(user, "client-certificate", beside), _pem(user, "client-key", beside)
    file = beside / user["tokenFile"] if user.get("tokenFile") else None  # as for kubectl, it goes before a token
    return _Given(
        str(cluster["server"]),
        authority=_pem(cluster, "certificate-authority", above),
        certificate=f"{certificate}\n{key}" if certificate else "",
        server_name=str(cluster.get("tls-server-name") or ""),
        token=file.read_text().strip() if file else str(user.get("token") or "").strip(),
        token_file=file,
    )


def _first(documents: _Documents, kind: str, what: str, name: object) -> tuple[Path, dict[str, Any]]:
    """The first entry of a name, and the folder that its paths are relative to."""
    for folder, document in documents:
        for row in document.get(kind) or []:
            if str(row["name"]) == str(name):
                return folder, row[what]
    raise ValueError(f"no {what} {name}")


def _pem(row: Mapping[str, Any], name: str, folder: Path) -> str:
    """A text in a kubeconfig, or of a file that it names; what is in it goes first."""
    if data := row.get(f"{name}-data"):
        return base64.b64decode("".join(data.split()), validate=True).decode()
    return (folder / row[name]).read_text() if row.get(name) else ""


def _of_pod(env: Mapping[str, str]) -> _Given | None:
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT")
    file = kubeconfig.SERVICE_ACCOUNT / "token"
    if not (host and port and file.is_file()):
        return None
    address = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    token, authority = file.read_text().strip(), (kubeconfig.SERVICE_ACCOUNT / "ca.crt").read_text()
    return _Given(address, authority=authority, token=token, token_file=file) if token and authority else None


def _by_proxy(host: str) -> bool:
    """Whether the environment has a proxy for an address. What it exempts by subnets the official client knows.

    As for kubectl, none is for this machine.
    """
    if kubeconfig.of_this_machine(host):
        return False
    address = urlsplit(host)
    return address.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(address.netloc)
