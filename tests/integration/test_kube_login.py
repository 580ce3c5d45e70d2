"""Credentials of a kubeconfig against a real TLS server that wants a certificate: as read here, and by the client."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackctl.engines import kube, kube_client, kube_login
from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError
from stackctl.errors import MissingHere, StackError

NAME = "kubernetes.test"
"""What the server's certificate is for, and no address of its own."""


class Handler(BaseHTTPRequestHandler):
    """Tells who asks."""

    def do_GET(self) -> None:
        certificate: Any = self.connection.getpeercert()
        about: dict[str, Any] = {"subject": dict(row[0] for row in certificate["subject"]) if certificate else {}}
        acting = [self.headers.get("Impersonate-User"), *self.headers.get_all("Impersonate-Group", [])]
        about |= {"acting": acting} if acting[0] else {}
        body = json.dumps({**about, "token": self.headers.get("Authorization")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's and a person's certificate, each signed by itself, and another server's."""
    made = tmp_path_factory.mktemp("tls")
    for name, subject in (("server", NAME), ("person", "me"), ("other", NAME)):
        argv = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        argv += ["-subj", f"/CN={subject}", "-addext", f"subjectAltName=DNS:{subject}"]
        argv += ["-keyout", str(made / f"{name}.key"), "-out", str(made / f"{name}.crt")]
        subprocess.run(argv, check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """The address of a server on this machine that takes certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(folder / "person.crt")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.socket = context.wrap_socket(serving.socket, server_side=True)
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


@pytest.fixture(params=["as it stands", "by the client"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "by the client":
        monkeypatch.setattr(kube, "login", kube_client.Login)
    return str(request.param)


def ask(server: str, path: Path, cluster: dict[str, str], user: dict[str, str]) -> Any:
    """What the server is told of somebody with this kubeconfig."""
    rows = {
        "clusters": [{"name": "c", "cluster": {"server": server, "tls-server-name": NAME, **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump({"current-context": "here", **rows}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(path))
        patch.setenv("STACK_KUBE_TIMEOUT", "5")
        return Cluster().read("version", dict[str, Any])


def data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_a_certificate_is_shown_and_one_is_checked(way: str, server: str, folder: Path) -> None:
    """Paths are relative to the kubeconfig, whatever folder is the current one."""
    config = folder / "config"
    authority = {"certificate-authority": "server.crt"}
    by_path = ask(server, config, authority, {"client-certificate": "person.crt", "client-key": "person.key"})
    assert by_path == {"subject": {"commonName": "me"}, "token": None}
    held = {"client-certificate-data": data(folder / "person.crt"), "client-key-data": data(folder / "person.key")}
    assert ask(server, config, {"certificate-authority-data": data(folder / "server.crt")}, held) == by_path
    assert ask(server, config, authority, {"token": "t"}) == {"subject": {}, "token": "Bearer t"}


@pytest.mark.parametrize(
    "cluster",
    [
        {"certificate-authority": "other.crt"},
        {},
        {"certificate-authority": "server.crt", "tls-server-name": "else.test"},
    ],
)
def test_a_server_that_is_not_the_one_is_not_told_anything(
    way: str, server: str, folder: Path, cluster: dict[str, str]
) -> None:
    with pytest.raises(
        ApiError, match=r"no safe connection to the cluster at .*(certificate|match|IP address|Hostname)"
    ):
        ask(server, folder / "config", cluster, {"token": "t"})


def test_keys_do_not_stay_on_the_disk(
    server: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held = {"client-certificate-data": data(folder / "person.crt"), "client-key-data": data(folder / "person.key")}
    found = ask(server, folder / "config", {"certificate-authority": "server.crt"}, held)
    assert (found["subject"], list(tmp_path.iterdir())) == ({"commonName": "me"}, [])
    monkeypatch.setenv("KUBECONFIG", str(folder / "config"))
    assert isinstance(kube_login.login(""), kube_login.Static)


def test_a_plugin_that_is_not_there_is_to_be_installed(server: str, folder: Path) -> None:
    plugin: Any = {"exec": {"command": "nosuchplugin", "apiVersion": "client.authentication.k8s.io/v1"}}
    with pytest.raises(MissingHere, match="'nosuchplugin'") as error:
        ask(server, folder / "config", {}, plugin)
    assert "install the program" in error.value.hint


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        ({"token": "of-a-plugin"}, {"subject": {}, "token": "Bearer of-a-plugin"}),
        ({"clientCertificateData": "person.crt", "clientKeyData": "person.key"},
         {"subject": {"commonName": "me"}, "token": None}),
    ],
)  # fmt: skip
def test_a_plugin_gives_a_token_or_a_certificate(
    status: dict[str, str], seen: dict[str, Any], server: str, folder: Path
) -> None:
    given = {key: (folder / value).read_text() if key != "token" else value for key, value in status.items()}
    version = "client.authentication.k8s.io/v1"
    credential = {"kind": "ExecCredential", "apiVersion": version, "status": given}
    (folder / "credential").write_text(json.dumps(credential))
    program = {"command": "cat", "args": [str(folder / "credential")], "apiVersion": version}
    plugin: Any = {"exec": {**program, "interactiveMode": "Never"}}
    assert ask(server, folder / "config", {"certificate-authority": "server.crt"}, plugin) == seen


def test_a_locked_key_asks_for_nothing(server: str, folder: Path) -> None:
    locked = folder / "locked.key"
    argv = ["openssl", "ec", "-in", str(folder / "person.key"), "-aes256", "-passout", "pass:x", "-out", str(locked)]
    subprocess.run(argv, check=True, capture_output=True)
    user = {"client-certificate": "person.crt", "client-key": "locked.key"}
    with pytest.raises(StackError, match="encrypted"):
        ask(server, folder / "config", {"certificate-authority": "server.crt"}, user)


def test_who_somebody_acts_as_is_told(way: str, server: str, folder: Path) -> None:
    user: Any = {"token": "t", "as": "jane", "as-groups": ["a", "b"]}
    found = ask(server, folder / "config", {"certificate-authority": "server.crt"}, user)
    assert found["acting"] == ["jane", "a", "b"]
