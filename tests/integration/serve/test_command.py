"""`stackctl serve` here: a service is a run, which list, status, logs, explain and cancel know."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.commands import STACKCTL, environment, hear_signals
from tests.support.load import Clients, flood, post
from tests.support.ports import free_port
from tests.support.processes import background
from tests.support.served import has_learned, recognized
from tests.support.waiting import until

TOKEN = "let-me-in"


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A model that containers may read, and a token."""
    for name in ("words", "trained"):
        shutil.copytree(models / name, tmp_path / name)
    shutil.copy(models / "pictures.keras", tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755)
    return tmp_path


def serves(folder: Path, model: str, name: str, backend: str, *, requests: int) -> None:
    """A service from its start to its end: in between it goes over to other models, as its clients go on asking."""
    port = free_port()
    env = environment(STACK_RUNS=str(folder / "runs"))
    words = ["serve", model, "--on", backend, "--name", name, "--port", str(port), "--token-file", "token"]
    place = ("127.0.0.1", port)
    api = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=TOKEN, max_retries=0)

    def ready() -> bool:
        try:
            return [row.id for row in api.models.list()] == [model]
        except openai.APIConnectionError:
            return False

    def say(*words: str) -> str:
        done = subprocess.run(
            [STACKCTL, *words], env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(*words: str) -> str:
        done = subprocess.run(
            [STACKCTL, *words], env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 2
        return done.stderr

    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}  # a log that nobody reads holds a server up
    with background([STACKCTL, *words], env=env, cwd=folder, **streams) as running:
        until(lambda: ready() or running.poll() is not None, 400)
        assert running.poll() is None, running.communicate()
        pieces = api.completions.create(model=model, prompt="To be", max_tokens=8, stream=True)
        assert sum(len(piece.choices[0].text) for piece in pieces)
        assert {row["name"]: row["state"] for row in json.loads(say("list", "--json"))}[name] == "running"
        assert say("status", name).startswith(f"{name}: running")
        assert say("explain", name).startswith(f"{name}: running")
        assert '"event": "ready"' in say("logs", name)

        again = ["--on", backend, "--name", name, "--model-name", model]
        asked = {"model": model, "prompt": "To be", "max_tokens": 4, "temperature": 0}
        with Clients(lambda: place, "/v1/completions", asked, "choices", token=TOKEN) as clients:
            said = say("serve", "trained", *again, "--", "--max-batch", "2", "--queue", "4")
            assert said == f"{name}: serves the model {model} at http://127.0.0.1:{port}\n"
            until(lambda: len(clients.seconds) >= requests, 400)
        print(f"{backend}, another model meanwhile: {clients.told}")
        assert not clients.failed, clients.failed[:5]
        assert has_learned(api, model)

        statuses = flood(lambda: place, "/v1/completions", {**asked, "max_tokens": 24}, token=TOKEN)
        print(f"{backend}, too many at once: {dict(statuses)}")
        assert {429} <= set(statuses) <= {200, 429, 503}
        assert post(place, "/v1/completions", asked, TOKEN)[0] == 200

        assert "belongs to the service" in refused("serve", "trained", *again, "--port", "9")
        (folder / "pictures.keras").rename(folder / "digits.keras")
        say("serve", "digits.keras", "--on", backend, "--name", name)
        assert recognized(lambda row: post(place, "/v1/models/digits:predict", row, TOKEN)) > 0.7
        assert say("cancel", name).startswith(f"{name}: asked to end")
        running.wait(60)
        assert running.returncode == 0
    status: dict[str, Any] = json.loads(say("status", name, "--json"))
    assert status["run"]["state"] in ("stopped", "succeeded")


def test_a_run_is_served_as_a_process(folder: Path) -> None:
    tiny = ["--steps", "2", "--layers", "1", "--width", "32", "--heads", "2", "--context", "32", "--eval-tokens", "64"]
    argv = [STACKCTL, "run", "gpt", "--name", "plays", "--", *tiny]
    subprocess.run(argv, env=environment(STACK_RUNS=str(folder / "runs")), check=True, capture_output=True, timeout=240)
    serves(folder, "plays", "plays-served", "local", requests=400)


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_a_service_as_a_container(folder: Path, built: Callable[[str], str]) -> None:
    built("serve")
    serves(folder, "words", f"stacktest-words-{free_port()}", "compose", requests=2000)


def test_what_cannot_be_served_is_one_error(folder: Path) -> None:
    def refused(*words: str) -> str:
        env = environment(STACK_RUNS=str(folder / "runs"))
        done = subprocess.run(
            [STACKCTL, "serve", *words], env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr

    assert "name one model" in refused()
    assert "nothing: there is no such file, folder or run" in refused("nothing")
    (folder / "words" / "model.safetensors").write_bytes(b"cut off")
    assert "model.safetensors: is damaged: its header is cut off" in refused("words")
    assert "--wait: is for --on kubernetes" in refused("words", "--wait")
    assert "add --dry-run" in refused("words", "--engine", "vllm")


def test_an_interrupted_service_ends(folder: Path) -> None:
    port = free_port()
    env = environment(STACK_RUNS=str(folder / "runs"))
    words = ["serve", "words", "--name", "brief", "--port", str(port), "--", "--drain", "0"]
    streams: dict[str, Any] = {"stderr": subprocess.PIPE, "preexec_fn": hear_signals}
    with background([STACKCTL, *words], env=env, cwd=folder, **streams) as running:
        assert running.stdout is not None
        assert any('"ready"' in line for line in running.stdout)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) in (0, 130)


def test_of_two_that_begin_at_once_one_gets_the_port_and_the_other_says_so(folder: Path) -> None:
    argv = [sys.executable, "-P", "-m", "stackrt.serve", str(folder / "words"), "--port", str(free_port())]
    env = environment() | {"PYTHONPATH": str(Path(__file__).parents[3] / "images")}
    with ExitStack() as stack:
        both = [stack.enter_context(background(argv, env=env, stderr=subprocess.PIPE)) for _ in range(2)]
        until(lambda: any(one.poll() is not None for one in both), 120)
        loser = next(one for one in both if one.poll() is not None)
        assert loser.returncode == 78
        assert loser.stderr is not None
        assert "Address already in use; choose another port" in loser.stderr.read()
