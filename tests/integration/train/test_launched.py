"""The trainer under the real launcher: two nodes of two ranks, stopped, go on as one node of four."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.trainers import Trainers, environment

pytestmark = pytest.mark.needs("torch")

HARD = ["--layers", "1", "--heads", "2", "--width", "32", "--context", "16", "--batch-size", "2", "--grad-accum", "2",
        "--dropout", "0.2", "--steps", "120", "--eval-tokens", "2000", "--log-every", "2",
        "--sample-tokens", "4"]  # fmt: skip


def launch(
    nodes: int, procs: int, port: int, out: Path, trainer: str = "gpt", argv: Sequence[str] = HARD
) -> list[subprocess.Popen[str]]:
    """Start one launcher a node."""
    job = {"STACK_RUN": "drill", "STACK_NODES": str(nodes), "STACK_PROCS": str(procs), "STACK_OUT": str(out),
           "STACK_RENDEZVOUS": f"127.0.0.1:{port}", "STACK_TOKEN": "a token for the drills",
           "STACK_TIMEOUT": "60"}  # fmt: skip
    command = [sys.executable, "-m", "stackrt.launch", "--", sys.executable, "-m", f"stackrt.train.{trainer}", *argv]
    return [
        subprocess.Popen(command, env=environment() | job | {"STACK_NODE_RANK": str(node)}, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for node in range(nodes)
    ]  # fmt: skip


def ends(launchers: list[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """Exit codes and all output; none goes on, whatever comes."""
    try:
        output = "".join(launcher.communicate(timeout=200)[0] for launcher in launchers)
    finally:
        for launcher in launchers:
            launcher.kill()
            launcher.communicate()
    return [launcher.returncode for launcher in launchers], output


def test_stopped_on_two_nodes_goes_on_on_one_bit_equal(trainers: Trainers, tmp_path: Path) -> None:
    trainers.run_ranks(1, 4, [*HARD, "--out", str(tmp_path / "whole")], tmp_path / "whole.logs")
    out = tmp_path / "out"
    launchers = launch(2, 2, free_port(), out)
    try:
        deadline = time.monotonic() + 120
        while not ((out / "metrics.jsonl").exists() and '"step": 4,' in (out / "metrics.jsonl").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for launcher in launchers:
            launcher.send_signal(signal.SIGTERM)
        codes, output = ends(launchers)
        print(output)
        assert codes == [143, 143], output
        assert "stopped by SIGTERM after step" in output
        assert "Traceback" not in output
        launchers = launch(1, 4, free_port(), out)
        codes, output = ends(launchers)
        assert codes == [0], output
        assert "going on from" in output
        assert "Traceback" not in output
        assert "arning" not in output
    finally:
        for launcher in launchers:
            launcher.kill()
            launcher.communicate()
    found, wanted = (json.loads((folder / "result.json").read_text()) for folder in (out, tmp_path / "whole"))
    assert found["params_sha256"] == wanted["params_sha256"]
    assert found["last_val_loss"] == wanted["last_val_loss"]
