from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from stackctl.engines import kubeconfig
from stackctl.engines.kube import Cluster
from stackctl.engines.kube_client import Login as ClientLogin
from stackctl.engines.kube_login import Static, login
from stackctl.errors import InvalidInput, MissingHere

KUBECONFIG = """\
current-context: here
clusters: [{name: c, cluster: {server: "https://10.9.9.9:1/"}}]
contexts: [{name: here, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
"""

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUcubB2mZrbOgiy6l/75dBohS052IwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMzAxNjM5NTlaGA8yMTI2MTEwNjE2Mzk1
OVowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLEp
+B5Bjom1ChajkwOn5IojvsLLPI1SJV7PnODJqYcrluteJ034mOokbKSvMVNVhnjO
EHvSKtekPvRs6P8JHIOjUzBRMB0GA1UdDgQWBBRYGuE2eyAwuR7lZHwpMauqjK+P
TTAfBgNVHSMEGDAWgBRYGuE2eyAwuR7lZHwpMauqjK+PTTAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQCSysOtjyS7ZoTarf9WspwI31TaG1L+XbQ3
vY5wH2v1aAIhALtLChNQk2Wh0jpU/fWV8rpQlRdaBFD62FjtFROL82fp
-----END CERTIFICATE-----
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config").write_text(KUBECONFIG)
    (tmp_path / "empty").touch()
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'empty'}:{tmp_path / 'config'}")
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    return tmp_path / "config"


def test_credentials_are_found_beside_an_empty_file(config: Path) -> None:
    found = login("")
    assert (found.host, found.token()) == ("https://10.9.9.9:1", "Bearer t")


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [("http://me:secret@10.0.0.1:3128", "http://10.0.0.1:3128"), ("10.0.0.1:3128", "http://10.0.0.1:3128")],
)
def test_a_proxy_is_shown_without_its_password(
    proxy: str, shown: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert login("").proxy == shown


@pytest.mark.filterwarnings("ignore:SOCKS support")
@pytest.mark.parametrize("proxy", ["socks5://10.0.0.1:1080", "gopher://10.0.0.1:70"])
def test_a_proxy_that_cannot_be_used_is_one_clear_error(
    proxy: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(MissingHere, match=f"the proxy {proxy} cannot be used: ") as error:
        login("")
    assert "NO_PROXY" in error.value.hint


@pytest.mark.parametrize("line", ["", 'current-context: ""'])
def test_a_kubeconfig_without_a_current_context_wants_one(line: str, config: Path) -> None:
    config.write_text(KUBECONFIG.replace("current-context: here", line))
    with pytest.raises(MissingHere, match="the kubeconfig has no current context"):
        login("")
    assert login("here").host == "https://10.9.9.9:1"


def test_a_current_context_that_is_not_there_is_named(config: Path) -> None:
    config.write_text(KUBECONFIG.replace("current-context: here", "current-context: other"))
    with pytest.raises(InvalidInput, match="no such context"):
        login("")


@pytest.mark.parametrize("server", ["10.9.9.9:6443", '""', "ftp://10.9.9.9"])
def test_an_address_that_is_none_is_named(server: str, config: Path) -> None:
    config.write_text(KUBECONFIG.replace('"https://10.9.9.9:1/"', server))
    with pytest.raises(InvalidInput, match="is no address of an API server") as error:
        login("")
    assert "https://HOST:6443" in error.value.hint


@pytest.mark.parametrize(
    ("where", "key", "what"),
    [("server", "certificate-authority-data", "certificate-authority"), ("token", "client-key-data", "client-key")],
)
def test_a_certificate_or_key_that_is_none_is_the_kubeconfigs_error(
    where: str, key: str, what: str, config: Path
) -> None:
    wrong = base64.b64encode(CERTIFICATE.replace("MIIB", "AAAA").encode()).decode()
    pair = f"client-certificate-data: {base64.b64encode(CERTIFICATE.encode()).decode()}, " if where == "token" else ""
    config.write_text(KUBECONFIG.replace(f"{{{where}:", f"{{{pair}{key}: {wrong}, {where}:"))
    with pytest.raises(MissingHere, match=f"the kubeconfig's .*{what} cannot be used: "):
        login("")


def user(words: str) -> str:
    return KUBECONFIG.replace("{token: t}", words)


def test_what_stands_there_as_it_is_needs_no_client(config: Path, tmp_path: Path) -> None:
    assert isinstance(login(""), Static)
    (tmp_path / "token").write_text(" from-a-file\n")
    config.write_text(user("{tokenFile: token}"))
    found = login("")
    assert (type(found), found.token()) == (Static, "Bearer from-a-file")
    config.write_text(user("{}"))
    assert login("").token() is None
    config.write_text(user("{token: t, exec: null}").replace("server:", "insecure-skip-tls-verify: false, server:"))
    assert isinstance(login(""), Static)
    config.write_text(config.read_text().replace("verify: false", "verify: true"))
    assert isinstance(login(""), ClientLogin)


@pytest.mark.parametrize(
    "words",
    ["{exec: {command: x, apiVersion: client.authentication.k8s.io/v1}}", "{auth-provider: {name: oidc}}",
     "{username: me, password: secret}", "{tokenFile: absent}", "{client-certificate-data: '???'}",
     "{client-certificate: absent, client-key: absent}"],
)  # fmt: skip
def test_all_else_is_for_the_client_which_says_what_is_wrong(words: str, config: Path) -> None:
    config.write_text(user(words))
    try:
        found = login("")
    except MissingHere as error:
        said = str(error)
    else:
        said = "" if isinstance(found, ClientLogin) else "used as it is"
    assert said.startswith("the kubeconfig") or not said


def test_a_proxy_is_for_the_client_unless_the_cluster_is_exempt(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://10.0.0.1:3128")
    assert isinstance(login(""), ClientLogin)
    monkeypatch.setenv("NO_PROXY", "example.com,10.9.9.9")
    assert isinstance(login(""), Static)
    config.write_text(KUBECONFIG.replace("cluster: {server", "cluster: {proxy-url: 'http://10.0.0.1:3128', server"))
    assert login("").proxy == "http://10.0.0.1:3128"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_no_proxy_is_for_this_machine(host: str, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://10.0.0.1:3128")
    config.write_text(KUBECONFIG.replace("10.9.9.9", host))
    assert isinstance(login(""), Static)


def test_a_file_with_a_token_goes_before_a_token(config: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("newer")
    config.write_text(user("{token: older, tokenFile: token}"))
    assert login("").token() == "Bearer newer"


def test_who_a_user_acts_as_is_told_with_each_request(config: Path) -> None:
    assert kubeconfig.acting_as(os.environ, "") == []
    config.write_text(user("{token: t, as: jane, as-uid: 7, as-groups: [a, b], as-user-extra: {scope/x: [view]}}"))
    assert isinstance(login(""), Static)
    assert kubeconfig.acting_as(os.environ, "here") == [
        ("Impersonate-User", "jane"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-scope%2Fx", "view"),
    ]


@pytest.mark.parametrize("token", ["'a\n\n  b'", '"a\u2192"'])
def test_a_token_that_no_header_holds_is_not_printed(token: str, config: Path) -> None:
    config.write_text(user(f"{{token: {token}}}"))
    with pytest.raises(MissingHere, match="the kubeconfig's token is none") as error:
        Cluster().read("version", dict)
    assert "Bearer" not in str(error.value)


def test_a_folder_is_no_kubeconfig(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(config.parent))
    with pytest.raises(MissingHere, match="is no regular file"):
        login("")


@pytest.mark.parametrize(
    "words",
    ["{auth-provider: {name: gcp}}", "{auth-provider: {name: gcp, config: {}}}", "{auth-provider: {name: oidc}}",
     "{auth-provider: {name: oidc, config: {client-secret: hidden}}}", "{auth-provider: {name: mine}}"],
)  # fmt: skip
def test_an_auth_provider_that_gives_nothing_is_one_error(words: str, config: Path) -> None:
    config.write_text(user(words))
    with pytest.raises(MissingHere, match=r"the kubeconfig('s credentials cannot be had| cannot be used): ") as error:
        login("")
    assert "hidden" not in str(error.value)


def test_of_two_files_the_first_that_has_a_name_counts(config: Path, tmp_path: Path) -> None:
    config.write_text(
        KUBECONFIG.replace("name: here", "name: 7").replace("current-context: here", "current-context: 7")
    )
    (tmp_path / "empty").write_text("users: [{name: u, user: {token: first}}]\n")
    assert login("").token() == "Bearer first"
    assert login("7").token() == "Bearer first"


def test_a_pod_s_token_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path)
    (tmp_path / "token").write_text("one")
    (tmp_path / "ca.crt").write_text(CERTIFICATE)
    found = login("")
    assert (type(found), found.host, found.token()) == (Static, "https://[fd00::1]:443", "Bearer one")
    (tmp_path / "token").write_text("two")
    assert found.token() == "Bearer one"
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    assert found.token() == "Bearer two"
    (tmp_path / "token").unlink()
    monkeypatch.setattr("time.monotonic", lambda: 2e9)
    assert found.token() == "Bearer two"
