from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.engines.kube_login import Login
from stackctl.errors import MissingHere

KUBECONFIG = """\
current-context: here
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1/"}}]
contexts: [{name: here, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
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
    login = Login("")
    assert (login.host, login.token()) == ("https://127.0.0.1:1", "Bearer t")


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [("http://me:secret@10.0.0.1:3128", "http://10.0.0.1:3128"), ("10.0.0.1:3128", "http://10.0.0.1:3128")],
)
def test_a_proxy_is_shown_without_its_password(
    proxy: str, shown: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert Login("").proxy == shown


@pytest.mark.filterwarnings("ignore:SOCKS support")
@pytest.mark.parametrize("proxy", ["socks5://10.0.0.1:1080", "gopher://10.0.0.1:70"])
def test_a_proxy_that_cannot_be_used_is_one_clear_error(
    proxy: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(MissingHere, match=f"the proxy {proxy} cannot be used: ") as error:
        Login("")
    assert "NO_PROXY" in error.value.hint


@pytest.mark.parametrize("line", ["", "current-context: other", 'current-context: ""'])
def test_a_kubeconfig_without_a_current_context_wants_one(line: str, config: Path) -> None:
    config.write_text(KUBECONFIG.replace("current-context: here", line))
    with pytest.raises(MissingHere, match="the kubeconfig has no current context"):
        Login("")
    assert Login("here").host == "https://127.0.0.1:1"
