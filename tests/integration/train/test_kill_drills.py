"""kill -9 at random moments: what is on disk always goes on, and the end is bit-equal to an unbroken run."""

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.trainers import Trainers

pytestmark = pytest.mark.needs("torch")

KILLS = 100
SEED = 20_240_501
# A checkpoint at every step, of a model wide enough that writing takes a good part of the time.
ARGV = ["--layers", "1", "--heads", "2", "--width", "48", "--context", "16", "--batch-size", "2", "--grad-accum", "2",
        "--dropout", "0.2", "--checkpoint-every", "1", "--log-every", "3", "--eval-every", "40", "--eval-tokens", "500",
        "--sample-tokens", "2", "--seed", "3"]  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "my.txt"
    path.write_text("".join(f"line {i} is followed by line {i + 1}\n" for i in range(500)))
    return path


def finished(out: Path, log: Path) -> tuple[str, list[tuple[int, float | None, float | None]]]:
    """A finished run's weights and its losses by step, after checking that its rows are unique and in order."""
    done = json.loads((out / "result.json").read_text())
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps)), f"rows are doubled or out of order: {steps}\n{log.read_text()[-2000:]}"
    return done["params_sha256"], [(row["step"], row.get("loss"), row.get("val_loss")) for row in rows]


def newest_step(out: Path) -> str:
    return max((path.name for path in (out / "checkpoints").glob("step-*.pt")), default="")


def test_a_hundred_kills_at_random_moments(trainers: Trainers, tmp_path: Path, text: Path) -> None:
    argv = [*ARGV, "--data", str(text), "--steps", "120"]
    began = time.monotonic()
    trainers.run([*argv, "--out", str(tmp_path / "whole"), "--checkpoint-every", "120"], tmp_path / "whole.log")
    unbroken = finished(tmp_path / "whole", tmp_path / "whole.log")
    assert len(unbroken[1]) == 44

    dice = random.Random(SEED)
    landed: Counter[str] = Counter()
    kills = chain = 0
    while kills < KILLS:
        chain += 1
        out, log = tmp_path / f"chain-{chain}", tmp_path / f"chain-{chain}.log"
        while True:
            before = newest_step(out)
            process = trainers.start([*argv, "--out", str(out)], log)
            code = None
            if kills < KILLS:
                # A third anywhere from the first instant; the others soon after this attempt's first own checkpoint,
                # so that they fall between and into steps and writes.
                if dice.random() < 1 / 3:
                    time.sleep(dice.uniform(0, 0.8))
                else:
                    deadline = time.monotonic() + 30
                    while newest_step(out) == before and time.monotonic() < deadline and code is None:
                        code = process.wait(0.001)
                    time.sleep(dice.uniform(0, 0.08))
                code = process.wait(0) if code is None else code
                if code is None:
                    process.kill()
            code = process.wait() if code is None else code
            told = f"seed {SEED}, kill {kills}, chain {chain}\n{log.read_text()[-3000:] if log.exists() else ''}"
            if code == 0:
                break
            assert code == -signal.SIGKILL, told
            kills += 1
            writing = any((out / "checkpoints").glob(".step-*.tmp"))
            landed["writing" if writing else "start-up" if newest_step(out) == before else "steps"] += 1
        assert finished(out, log) == unbroken, told
        assert not list((out / "checkpoints").glob(".*")), "a half-written checkpoint stayed"
    print(f"{kills} kills in {chain} runs, {time.monotonic() - began:.0f} s: {dict(landed)}")
    assert all(landed[phase] >= 3 for phase in ("start-up", "steps", "writing")), landed


def test_kills_of_one_rank_of_four(trainers: Trainers, tmp_path: Path, text: Path) -> None:
    """The others end by themselves, and the ranks go on together from what rank 0 had written."""
    argv = [*ARGV, "--data", str(text), "--steps", "200"]
    trainers.run_ranks(2, 2, [*argv, "--out", str(tmp_path / "whole")], tmp_path / "whole.logs")
    out = tmp_path / "broken"
    dice = random.Random(SEED)
    for kill in range(6):
        before = newest_step(out)
        ranks = trainers.start_ranks(2, 2, [*argv, "--out", str(out)], tmp_path / f"{kill}.logs")
        deadline = time.monotonic() + 60
        while newest_step(out) == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.05))
        victim = dice.choice(ranks)
        victim.kill()
        codes = [rank.wait(60) for rank in ranks]
        told = f"seed {SEED}, kill {kill}: {codes}\n" + "\n".join(rank.output[-1500:] for rank in ranks)
        assert codes[ranks.index(victim)] == -signal.SIGKILL, told
        assert {*codes} <= {-signal.SIGKILL, 75}, told
    trainers.run_ranks(2, 2, [*argv, "--out", str(out)], tmp_path / "last.logs")
    assert finished(out, tmp_path / "last.logs" / "rank-0.log") == finished(
        tmp_path / "whole", tmp_path / "whole.logs" / "rank-0.log"
    )
