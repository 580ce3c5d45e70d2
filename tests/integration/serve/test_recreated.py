"""compose.yaml's server as a user changes its model, `docker compose up`: requests wait for the next one."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.support.load import Clients, post
from tests.support.ports import free_port
from tests.support.served import language_model
from tests.support.waiting import until

pytestmark = [pytest.mark.needs("docker"), pytest.mark.usefixtures("leaves_nothing")]

REQUESTS = 2000


@pytest.fixture
def compose(built: Callable[[str], str], models: Path, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """`docker compose` with a model; gives the port."""
    shutil.copytree(models / "words", tmp_path / "out" / "first" / "words")
    language_model(tmp_path / "out" / "second" / "words", width=48)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755)
    port = free_port()
    base = ["docker", "compose", "--project-name", f"stacktest{os.getpid()}-serve", "--file", "compose.yaml"]
    env = {**os.environ, "STACK_SERVE_IMAGE": built("serve"), "STACK_SERVE_PORT": str(port),
           "STACK_OUT": str(tmp_path / "out")}  # fmt: skip

    def run(model: str, *words: str) -> int:
        asked = env | {"STACK_MODEL": model}
        done = subprocess.run(
            [*base, *words], cwd=ROOT, env=asked, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
        return port

    yield run
    down = [*base, "--profile", "serve", "down", "--timeout", "5"]
    subprocess.run(down, cwd=ROOT, env=env, capture_output=True, check=True, timeout=120)


def test_requests_wait_while_another_model_is_brought_up(compose: Callable[..., int]) -> None:
    up = ("up", "--detach", "--no-build", "serve")
    place = ("127.0.0.1", compose("first/words", *up))
    asked = {"model": "words", "prompt": "To be", "max_tokens": 4, "temperature": 0}

    def says() -> str:
        try:
            status, answer = post(place, "/v1/completions", asked)
            return str(answer["choices"][0]["text"]) if status == 200 else ""
        except (OSError, http.client.HTTPException):
            return ""

    until(says, 300)
    before = says()
    with Clients(lambda: place, "/v1/completions", asked, "choices") as clients:
        compose("second/words", *up)
        until(lambda: says() not in ("", before), 300)
        until(lambda: len(clients.seconds) >= REQUESTS, 300)
    print(f"docker compose up of another model: {clients.told}, the longest {max(clients.seconds):.1f} s")
    assert not clients.failed, clients.failed[:5]

    order = ("exec", "--no-TTY", "serve", "python", "-P", "-m", "stackrt.serve.order", "/tmp/next", "/out/first/words")
    compose("second/words", *order)
    until(lambda: says() == before, 30, says)  # what has just come to the old one it answers still
