"""Client and docker package use the same engine, wherever it is; and what comes of one that fails."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stackctl.engines import compose, container, docker, docker_api
from stackctl.errors import MissingHere
from stackctl.suite import plan
from tests.commands import ROOT, STACKCTL, Stackctl, environment, hear_signals
from tests.support.engine_front import Front, certificate
from tests.support.processes import background, children
from tests.support.running import Running, read
from tests.support.waiting import until

pytestmark = pytest.mark.needs("docker")

PRINTS = {"Cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"], "HostConfig": {"NetworkMode": "none"}}


@pytest.fixture
def fronts() -> Iterator[list[Front]]:
    """Those that a test makes, shut after it."""
    made: list[Front] = []
    yield made
    for front in made:
        front.shut()


@pytest.fixture
def by_socket(fronts: list[Front], tmp_path: Path) -> Callable[..., tuple[Front, str]]:
    def make(**options: Any) -> tuple[Front, str]:
        listening = socket.socket(socket.AF_UNIX)
        path = tmp_path / f"{len(fronts)}.sock"
        listening.bind(str(path))
        fronts.append(Front(listening, **options))
        return fronts[-1], f"unix://{path}"

    return make


@pytest.fixture
def by_tls(fronts: list[Front], tmp_path: Path) -> tuple[Front, str, Path]:
    """An engine that lets nobody in without the certificate; its address, and the folder with what it takes."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    fronts.append(Front(listening, certificate(folder)))
    return fronts[-1], f"tcp://127.0.0.1:{listening.getsockname()[1]}", folder


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Set what chooses the engine, and nothing of the person who runs the tests: `choose(DOCKER_CONTEXT="mine")`."""

    def set_(**given: str) -> None:
        for name in [name for name in os.environ if name.startswith("DOCKER_")]:
            monkeypatch.delenv(name)
        for name, value in {"DOCKER_CONFIG": str(tmp_path / "config"), **given}.items():
            monkeypatch.setenv(name, value)

    set_()
    return set_


@pytest.fixture
def strange(tmp_path: Path) -> Iterator[tuple[list[str], str]]:
    """What other engines than ours answer, or leave out; what it was asked for, with whose header; and its address."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    answers = {
        "/version": {"ApiVersion": "1.41"},
        "/no/version": {"major": "1"},
        "/v1.41/info": {"DockerRootDir": str(closed / "docker")},
        "/v1.41/images/known/json": {"Id": "sha256:1", "Size": 5},
        "/v1.41/containers/json": [{"Id": "1", "Names": None}],
        "/v1.41/containers/here/logs": {},
    }
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(f"{path} {self.headers['X-Whose']}")
            self.send_response(200 if path in answers else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(path, {"message": "unknown: image not known"})).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield asked, f"tcp://127.0.0.1:{server.server_port}"
        server.shutdown()


def make_context(name: str, endpoint: str) -> None:
    subprocess.run(["docker", "context", "create", name, "--docker", endpoint], check=True, capture_output=True)


def seen_by_both(came: Callable[[], int]) -> None:
    """See that client and package are led to the same engine, through the same door."""
    before = came()
    argv = ["docker", "info", "--format", "{{.ID}}"]
    theirs = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    between = came()
    assert docker.about()["ID"] == theirs
    assert before < between < came()


def prints_both(capfd: pytest.CaptureFixture[str], image: str) -> None:
    """See that a container's output comes whole, and in two streams."""
    code, out = container.run({"Image": image, **PRINTS}, f"stackctl-test-engine-{os.getpid()}")
    assert (code, out, capfd.readouterr().err) == (3, "out\n", "err\n")


def test_contexts_by_name_and_by_environment(
    by_socket: Callable[..., tuple[Front, str]], choose: Callable[..., None], image: str, capfd: Any
) -> None:
    argv = ["docker", "info", "--format", "{{.ID}}"]
    default = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    assert docker.about()["ID"] == default
    mine, others = by_socket(), by_socket()
    make_context("mine", f"host={mine[1]}")
    make_context("others", f"host={others[1]}")

    choose(DOCKER_CONTEXT="mine")
    seen_by_both(lambda: mine[0].came)
    subprocess.run(["docker", "context", "use", "others"], check=True, capture_output=True)
    choose(DOCKER_CONTEXT="")
    seen_by_both(lambda: others[0].came)
    choose(DOCKER_CONTEXT="others", DOCKER_HOST=mine[1])
    seen_by_both(lambda: mine[0].came)
    prints_both(capfd, image)
    choose(DOCKER_CONTEXT="default")
    came = [mine[0].came, others[0].came]
    assert docker.about()["ID"] == default
    assert [mine[0].came, others[0].came] == came


def test_an_engine_with_tls(
    by_tls: tuple[Front, str, Path],
    choose: Callable[..., None],
    image: str,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front, address, folder = by_tls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.devnull)  # that of the package index, say
    choose(DOCKER_HOST=address, DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(folder))
    seen_by_both(lambda: front.came)
    choose(DOCKER_HOST=address, DOCKER_TLS="1", DOCKER_CERT_PATH=str(folder))
    seen_by_both(lambda: front.came)
    files = ",".join(f"{what}={folder / what}.pem" for what in ("ca", "cert", "key"))
    make_context("secured", f"host={address},{files}")
    choose(DOCKER_CONTEXT="secured", DOCKER_CERT_PATH="/nowhere")
    seen_by_both(lambda: front.came)
    prints_both(capfd, image)
    assert 0 < container.stop_seconds(image, f"stackctl-test-engine-stop-{os.getpid()}") < 9
    make_context("unknown", f"host={address}")
    choose(DOCKER_CONTEXT="unknown", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(folder))
    with pytest.raises(MissingHere, match="does not answer"):
        docker.require()


def test_an_engine_behind_ssh(
    choose: Callable[..., None], image: str, capfd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, ssh = tmp_path / "calls", tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    # As on the other machine: `docker system dial-stdio` finds its own engine.
    ssh.write_text(
        f'#!/bin/sh\necho "$@" >>"{calls}"\nunset DOCKER_HOST DOCKER_CONTEXT\nexec docker system dial-stdio\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(ssh.parent), os.environ["PATH"]]))

    def came() -> int:
        return len(calls.read_text().splitlines()) if calls.exists() else 0

    choose(DOCKER_HOST="ssh://me@machine.example:2222")
    seen_by_both(came)
    assert all("-p 2222" in call and "machine.example" in call for call in calls.read_text().splitlines())
    make_context("far", "host=ssh://me@machine.example")
    choose(DOCKER_CONTEXT="far")
    seen_by_both(came)
    prints_both(capfd, image)
    ssh.write_text("#!/bin/sh\necho 'me@machine.example: Permission denied (publickey).' >&2\nexit 255\n")
    with pytest.raises(MissingHere, match="publickey"):
        docker.require()
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(MissingHere, match="no socket can be made"):
        docker.require()


def test_what_a_dry_run_prints_is_what_is_started(image: str) -> None:
    chosen = plan.Selection(only=("lock-match",))
    argv = plan.container(image, chosen, name=f"stackctl-test-plan-{os.getpid()}", gpus=False)
    created = subprocess.run(["docker", "create", *argv[2:]], capture_output=True, text=True, check=True).stdout.strip()
    with docker_api.connected() as client:
        config = plan.config(image, chosen, seen="", gpus=False)
        other = client.create_container_from_config(config)["Id"]
        try:
            typed, told = client.inspect_container(created), client.inspect_container(other)
        finally:
            for key in (created, other):
                client.remove_container(key)
    # What the client writes out is the engine's default.
    differs = {
        name for name, value in typed["HostConfig"].items() if (value or None) != (told["HostConfig"][name] or None)
    }
    assert differs <= {"AutoRemove", "ConsoleSize", "MaskedPaths", "ReadonlyPaths", "RestartPolicy", "MemorySwappiness"}
    assert {name: typed["Config"][name] for name in ("Cmd", "Entrypoint", "Env", "User")} == {
        name: told["Config"][name] for name in ("Cmd", "Entrypoint", "Env", "User")
    }


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (
            {"DOCKER_HOST": "unix:///nowhere/docker.sock"},
            "does not answer: No such file or directory (unix:///nowhere/docker.sock)",
        ),
        ({"DOCKER_HOST": "tcp://127.0.0.1:9"}, "does not answer: Connection refused (tcp://127.0.0.1:9)"),
        ({"DOCKER_CONTEXT": "nowhere"}, 'knows no such engine: context "nowhere"'),
        ({"DOCKER_HOST": "nonsense://"}, "knows no such engine: "),
    ],
    ids=["no socket", "no port", "no context", "no address"],
)
def test_no_engine_is_exit_3_and_a_sentence(env: dict[str, str], said: str, stackctl: Stackctl) -> None:
    failed = stackctl("run", "gpt", "--on", "compose", env=env)
    assert failed.returncode == 3, failed.stderr
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    "settings",
    ['{"proxies": null}', '{"auths": {"here": {"auth": "Zm9v"}}}', '{"auths": {"here": {"auth": "!"}}}', "[]", "{"],
)
def test_settings_that_the_client_does_without(settings: str, choose: Callable[..., None], tmp_path: Path) -> None:
    choose()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text(settings)
    seen_by_both(itertools.count().__next__)


def test_headers_that_the_client_is_told_to_send(
    strange: tuple[list[str], str], choose: Callable[..., None], tmp_path: Path
) -> None:
    asked, address = strange
    choose(DOCKER_HOST=address)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text('{"HttpHeaders": {"X-Whose": "mine"}}')
    with docker_api.connected() as client:
        docker_api.ask(client, "GET", "here", "logs").close()
    assert asked == ["/version mine", "/v1.41/containers/here/logs mine"]


def test_an_engine_of_few_words(strange: tuple[list[str], str], choose: Callable[..., None]) -> None:
    choose(DOCKER_HOST=strange[1])
    assert docker.image("known") == docker.ImageInfo("sha256:1", 5, {}, "")
    assert docker.image("unknown") is None
    assert docker.images(["known", "unknown"]).keys() == {"known"}
    assert compose.own("project", Path("compose.yaml")) == compose.others("project", Path("compose.yaml")) == []


def test_what_is_no_engine(strange: tuple[list[str], str], choose: Callable[..., None]) -> None:
    choose(DOCKER_HOST=f"{strange[1]}/no")
    with pytest.raises(MissingHere, match="no Docker engine"):
        docker.require()


@pytest.mark.needs("linux")
def test_a_connection_on_which_nothing_comes_is_kept_alive(fronts: list[Front], choose: Callable[..., None]) -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    fronts.append(Front(listening))
    port = listening.getsockname()[1]
    choose(DOCKER_HOST=f"tcp://127.0.0.1:{port}")
    with docker_api.connected() as client:
        events = client.events(filters={"label": "none"})
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        timers = [row[5][:2] for row in rows if row[2].endswith(f":{port:04X}")]
        docker_api.hang_up(events)
    assert "02" in timers, "no keepalive: see proc_net_tcp.txt of the kernel"


@pytest.mark.needs("root")
def test_a_user_without_name_and_home(strange: tuple[list[str], str]) -> None:
    env = environment(DOCKER_HOST=strange[1], PYTHONPATH=f"{ROOT}:{ROOT / 'images'}")
    del env["HOME"]
    code = "import os, docker, requests; from stackctl.engines import docker\n"
    argv = [sys.executable, "-c", f"{code}os.setgroups([]); os.setuid(54321); print(docker.free_disk())"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("None\n", "")


@pytest.mark.needs("root")
def test_a_socket_that_is_not_for_this_user(by_socket: Callable[..., tuple[Front, str]], tmp_path: Path) -> None:
    _, address = by_socket()
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    Path(address.removeprefix("unix://")).chmod(0o600)
    env = environment(DOCKER_HOST=address, HOME=str(tmp_path), PYTHONPATH=f"{ROOT}:{ROOT / 'images'}")
    # Imported as root: the interpreter need not be for others.
    code = "import os, docker; from stackctl.engines import docker, docker_api; docker_api.host(); os.setuid(65534)\n"
    argv = [sys.executable, "-c", f"{code}docker.require()"]
    failed = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert "does not answer: Permission denied" in failed.stderr
    assert "usermod" in failed.stderr


def test_an_engine_that_hangs_is_left_with_ctrl_c(by_socket: Callable[..., tuple[Front, str]], tmp_path: Path) -> None:
    front, address = by_socket(deaf=True)
    env = environment(DOCKER_HOST=address)
    with background([STACKCTL, "images"], env=env, cwd=tmp_path, preexec_fn=hear_signals) as waiting:
        until(lambda: front.came > 0, 30)
        waiting.send_signal(signal.SIGINT)
        said, _ = waiting.communicate(timeout=10)
    assert (waiting.returncode, "interrupted" in said, "Traceback" in said) == (130, True, False), said


def test_an_engine_that_goes_while_containers_run(
    by_socket: Callable[..., tuple[Front, str]],
    image: str,
    start: Callable[..., Running],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front, address = by_socket()
    monkeypatch.setenv("DOCKER_HOST", address)
    run = start("--nodes", "2", "--on", "compose", "--", "python", "loop.py")
    run.wait_for_ranks(2)
    front.shut()
    monkeypatch.delenv("DOCKER_HOST")
    try:
        assert run.process.wait(60) == 1, run.said()
        assert "the Docker engine has gone while containers were running" in run.said()
        assert f"`docker compose -p {run.name} down`" in run.said()
        assert "Traceback" not in run.said()
        assert read(run.out / "run.json")["state"] == "failed"
    finally:
        subprocess.run(["docker", "compose", "-p", run.name, "down", "--timeout", "0"], capture_output=True, check=True)


def processes(pid: int) -> int:
    """How many processes there are, of this one and all that it has started."""
    return 1 + sum(map(processes, children(pid)))


def processes_beside(containers: int, image: str, folder: Path) -> int:
    """How many processes of ours there are while so many containers of a Compose project run."""
    name = f"t{os.getpid()}-{time.monotonic_ns() % 10**9}"
    file, said = folder / f"{name}.yaml", folder / f"{name}.log"
    script = 'trap "exit 0" TERM; echo up; while :; do sleep .2; done'
    service = f"{{image: {image}, network_mode: none, entrypoint: [sh, -c, '{script}']}}"
    names = [f"{name}-node-{each}-1" for each in range(containers)]
    file.write_text("services:\n" + "".join(f"  node-{each}: {service}\n" for each in range(containers)))
    code = "import sys; from pathlib import Path; from stackctl.engines import compose\n"
    code += "print(compose.run(Path(sys.argv[1]), sys.argv[2], {}))"
    argv = [sys.executable, "-c", code, str(file), name]
    try:
        with said.open("w") as log, background(argv, env=environment(), stdout=log, stderr=log, cwd=ROOT) as watching:
            until(lambda: said.read_text().count("up\n") == containers, 60)
            counted = processes(watching.pid)
            subprocess.run(["docker", "kill", "--signal", "TERM", *names], check=True, capture_output=True)
            assert watching.wait(60) == 0, said.read_text()
    finally:
        subprocess.run(["docker", "rm", "--force", *names], capture_output=True, check=False)
    assert str([0] * containers) in said.read_text()
    return counted


@pytest.mark.needs("linux")
@pytest.mark.usefixtures("leaves_nothing")
def test_the_containers_of_a_run_take_no_process_each(image: str, tmp_path: Path) -> None:
    """How many are watched makes no difference, so that 64 take as many as 3."""
    assert processes_beside(9, image, tmp_path) == processes_beside(3, image, tmp_path) <= 3
