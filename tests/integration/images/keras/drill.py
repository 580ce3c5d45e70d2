"""Runs in the image: trainings that are killed at random, and one that is told to stop, end as one without a break.

python drill.py KILLS SEED
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import stackrt.keras.train  # noqa: F401 - imported once: each training below is a fork of this process
from stackrt.keras.__main__ import main

# Dropout draws from generators whose state is part of a checkpoint, and early stopping counts over the breaks.
WORDS = ["--devices", "2", "--dropout", "0.3", "--warmup", "5", "--patience", "10", "--epochs", "12"]
WORDS += ["--batch-size", "352"]
PATIENCE = 900.0


class Training:
    """One attempt, a process of its own."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.code: int | None = None
        self.log = out.with_suffix(".log")
        self.pid = os.fork()
        if self.pid:
            return
        with self.log.open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        try:
            code = main([*WORDS, "--out", str(out)])
        except BaseException as error:
            print(repr(error), flush=True)
            code = 99
        sys.stdout.flush()
        os._exit(code)

    def step(self) -> str:
        """The newest checkpoint."""
        return max((path.name for path in (self.out / "checkpoints").glob("step-*.npz")), default="")

    def runs(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def end(self, *expected: int) -> int:
        deadline = time.monotonic() + PATIENCE
        while self.runs():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert self.code is not None
        assert self.code in expected, f"{self.code}: {self.log.read_text()[-3000:]}"
        return self.code

    def next_checkpoint(self) -> bool:
        before = self.step()
        while self.runs() and self.step() == before:
            time.sleep(0.002)
        return self.runs()


def finished(out: Path) -> tuple[str, list[int]]:
    """The weights, and the steps that the metrics have."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return json.loads((out / "result.json").read_text())["params_sha256"], [row["step"] for row in rows]


root = Path("/tmp/drill")
root.mkdir()
Training(root / "whole").end(0)
unbroken = finished(root / "whole")

stopped = Training(root / "stopped")
stopped.next_checkpoint()
os.kill(stopped.pid, signal.SIGTERM)
assert stopped.end(0, 143) == 143, "it was done before the signal came"
at = int(stopped.step().removeprefix("step-").removesuffix(".npz"))
Training(root / "stopped").end(0)
assert finished(root / "stopped")[0] == unbroken[0], "stopped"

dice = random.Random(int(sys.argv[2]))
kills, chain = 0, 0
while kills < int(sys.argv[1]):
    chain += 1
    out = root / f"chain-{chain}"
    while True:
        training = Training(out)
        if kills < int(sys.argv[1]) and training.next_checkpoint():
            time.sleep(dice.uniform(0, 0.2))
            os.kill(training.pid, signal.SIGKILL)
        if training.end(0, -signal.SIGKILL) == 0:
            break
        kills += 1
        print(f"kill {kills}", file=sys.stderr, flush=True)
    assert finished(out) == unbroken, f"chain {chain}, kill {kills}: {training.log.read_text()[-3000:]}"
print(json.dumps({"kills": kills, "chains": chain, "stopped_at": at}))
