"""`--track` against MLflow's own server, also one that is killed in mid-run, and wandb's offline mode.

Both packages come from a lock of their own into a folder of their own.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stackctl.engines.process import find
from tests.commands import ROOT
from tests.support.ports import free_port
from tests.support.trainers import PAYLOAD, environment

pytestmark = [pytest.mark.needs("torch"), pytest.mark.needs("index")]

GPT = ["--layers", "1", "--heads", "2", "--width", "16", "--context", "16", "--batch-size", "2", "--eval-tokens", "500",
       "--sample-tokens", "4", "--log-every", "1"]  # fmt: skip


def command(out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "stackrt.train.gpt", *GPT, "--out", str(out), *words]


def gpt(out: Path, *words: str, **env: str) -> str:
    done = subprocess.run(command(out, *words), env=environment(**env), capture_output=True, text=True, timeout=240,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH with the trackers' packages."""
    folder = tmp_path_factory.mktemp("trackers")
    uv = find("uv")
    assert uv
    options = ["--no-deps", "--require-hashes", "--target", str(folder), "--python", sys.executable]
    lock = ROOT / "locks" / "trackers.txt"
    subprocess.run([uv, "pip", "install", "--quiet", *options, "-r", str(lock)], check=True)
    return f"{folder}{os.pathsep}{PAYLOAD}"


@pytest.fixture
def server(path: str, tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """MLflow's server: its address, and its process, which leads a group."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    words = ["server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination",
             str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    with (tmp_path / "server.log").open("wb") as log:
        # Its queue of jobs, which we have no use for, needs further packages.
        env = os.environ | {"PYTHONPATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        process = subprocess.Popen([sys.executable, "-m", "mlflow", *words], cwd=tmp_path, stdout=log, stderr=log,
                                   env=env, start_new_session=True)  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while not answers(f"{address}/health"):
            assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(0.1)
        yield address, process
    finally:
        kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def ask(address: str, path: str, **body: Any) -> Any:
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/{path}", headers={"Content-Type": "application/json"})
    request.data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.timeout(900)
def test_mlflow_shows_the_run_and_its_death_ends_nothing(
    server: tuple[str, "subprocess.Popen[bytes]"], path: str, tmp_path: Path
) -> None:
    address, process = server
    env = {"MLFLOW_TRACKING_URI": address, "STACK_RUN": "gpt-7", "PYTHONPATH": path}
    out = tmp_path / "out"
    printed = gpt(out, "--steps", "6", "--track", "mlflow", **env)
    assert "track " not in printed, printed
    (run,) = ask(address, "runs/search", experiment_ids=["1"])["runs"]
    assert (run["info"]["run_name"], run["info"]["status"]) == ("gpt-7", "FINISHED")
    assert {"key": "steps", "value": "6"} in run["data"]["params"]
    number = run["info"]["run_id"]
    history = ask(address, f"metrics/get-history?run_id={number}&metric_key=loss")["metrics"]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    wanted = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert {int(metric.get("step", 0)): metric["value"] for metric in history} == pytest.approx(wanted)
    files = {file["path"] for file in ask(address, f"artifacts/list?run_id={number}")["files"]}
    assert files == {"loss.png", "sample.txt", "result.json"}

    # With the server killed in mid-run
    with (tmp_path / "log").open("wb") as log:
        killed = subprocess.Popen(
            command(tmp_path / "killed", "--steps", "2000", "--track", "mlflow"), env=environment(**env),
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not any(tracked["data"].get("metrics") for tracked in
                      ask(address, "runs/search", experiment_ids=["1"], filter="attributes.status = 'RUNNING'")
                      .get("runs", ())):  # fmt: skip
            assert killed.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        kill(process)
        assert killed.wait(240) == 0, (tmp_path / "log").read_text()
    finally:
        killed.kill()
        killed.wait()
    told = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("track ")]
    assert len(told) == 1, told
    assert "mlflow does not answer" in told[0]


def test_wandb_offline_keeps_the_run_in_its_folder(path: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = gpt(out, "--steps", "6", "--track", "wandb", WANDB_MODE="offline", PYTHONPATH=path)
    assert "track " not in printed, printed
    (record,) = out.glob("wandb/offline-run-*/run-*.wandb")
    assert b"tokens_per_second" in record.read_bytes()
    assert json.loads((out / "track.json").read_text())["wandb"] in record.name
