"""Runs in the image: kill -9 of the ranks of a trainer with Horovod.

python kills.py one RANK                  that rank, once there is a checkpoint in /out
python kills.py many MODULE KILLS SEED    a random rank at a random moment, again and again; each next attempt goes on
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

OUT = Path("/out")
RANKS = 2
WORDS = ["--steps", "60", "--checkpoint-every", "5", "--log-every", "5", "--eval-every", "20"]


def newest(out: Path = OUT) -> str:
    """The name of the newest checkpoint, or nothing."""
    return max((path.name for path in (out / "checkpoints").glob("step-*.npz")), default="")


def pids() -> dict[int, int]:
    """Rank -> its process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            env = dict(line.partition(b"=")[::2] for line in (folder / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if b"HOROVOD_RANK" in env and b"-m" in words and words[words.index(b"-m") + 1].startswith(b"stackrt.train."):
            found[int(env[b"HOROVOD_RANK"])] = int(folder.name)
    return found


def one(rank: int) -> None:
    """Kill a rank once there is a checkpoint."""
    while not newest():
        time.sleep(0.1)
    os.kill(pids()[rank], signal.SIGKILL)


def start(module: str, out: str) -> subprocess.Popen[str]:
    """One attempt."""
    argv = [sys.executable, "-m", "stackrt.launch", "--", sys.executable, "-P", "-m", module, *WORDS]
    env = {**os.environ, "STACK_PROCS": str(RANKS), "STACK_OUT": str(OUT / out)}
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(out: str) -> dict[str, object]:
    """What a run that came to its end has to have in common with every other."""
    done = json.loads((OUT / out / "result.json").read_text())
    rows = [json.loads(line) for line in (OUT / out / "metrics.jsonl").read_text().splitlines()]
    kept = [(row["step"], row.get("loss"), row.get("val_accuracy")) for row in rows]
    return {"sha256": done["params_sha256"], "rows": kept}


def many(module: str, kills: int, seed: int) -> None:
    """Kill until it is enough, and let the last one finish."""
    dice = random.Random(seed)
    whole = start(module, "whole")
    said = whole.communicate()[0]
    assert whole.returncode == 0, said
    done = chains = 0
    while done < kills:
        chains += 1
        shutil.rmtree(OUT / "broken", ignore_errors=True)
        while True:
            before = newest(OUT / "broken")
            attempt = start(module, "broken")
            if done < kills:
                # A third at any time in the start; the others soon after a checkpoint, or while it is written.
                until = time.monotonic() + dice.uniform(0.5, 5)
                early = dice.random() < 1 / 3
                while attempt.poll() is None and (
                    time.monotonic() < until if early else newest(OUT / "broken") == before
                ):
                    time.sleep(0.002)
                time.sleep(dice.uniform(0, 0.05))
                if victim := pids().get(dice.randrange(RANKS)):
                    os.kill(victim, signal.SIGKILL)
            said = attempt.communicate()[0]
            if attempt.returncode == 0:
                break
            assert "SIGKILL" in said, said
            done += 1
        assert finished("broken") == finished("whole"), said
    print(f"{done} kills in {chains} runs")


if __name__ == "__main__":
    kind, *words = sys.argv[1:]
    if kind == "one":
        one(int(words[0]))
    else:
        many(words[0], int(words[1]), int(words[2]))
