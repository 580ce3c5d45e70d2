"""How much sooner two processes prepare data than one.

    python bench/prepare.py [--runs N] [--json] [--check]

The same text, with a tokenizer that was learned before, by one rank and by two under the launcher, one after another in
each round; of each the fastest of the rounds counts, since other work on the machine only adds. Needs two CPUs, and the
trainers' packages.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import common

IMAGES = Path(__file__).parents[1] / "images"
TEXT = IMAGES / "stackrt" / "train" / "data" / "shakespeare.txt"
COPIES = 10
"""Of the plays: 13 MB, so that starting Python counts little."""
LEAST_SPEEDUP = 1.7
NOISE = 0.1
"""How far two runs stray on a shared machine: with --check the bound is held within it."""


def seconds(ranks: int, words: list[str], folder: Path) -> tuple[float, float]:
    """Prepare in a new folder: the time from the launcher's start to its end, and CPU time, of all ranks together."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STACK_")}
    env |= {"PYTHONPATH": str(IMAGES), "STACK_PROCS": str(ranks), "STACK_DEVICE": "cpu", "STACK_OUT": str(folder)}
    command = [sys.executable, "-m", "stackrt.launch", "--", sys.executable, "-m", "stackrt.train.prepare", *words]
    began, used = time.perf_counter(), cpu_seconds()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began, cpu_seconds() - used
    if done.returncode != 0:
        raise SystemExit(f"did not run: {done.stdout}{done.stderr}")
    return took


def cpu_seconds() -> float:
    """CPU time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(runs: int) -> tuple[dict[int, list[tuple[float, float]]], float]:
    """Seconds and CPU seconds by number of ranks, and the megabytes of text."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, learned = folder / "data.txt", folder / "learned"
        data.write_bytes(TEXT.read_bytes() * COPIES)
        words = ["--data", str(data), "--shard-bytes", str(1 << 20), "--to", str(folder / "shards")]
        bpe = ["--data", str(TEXT), "--tokenizer", "bpe", "--vocab-size", "8000", "--to", str(learned)]
        seconds(1, bpe, folder)
        words += ["--tokenizer", str(learned / "tokenizer.json")]
        times: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for _ in range(runs):
            for ranks, found in times.items():
                found.append(seconds(ranks, words, folder))
                shutil.rmtree(folder / "shards")
        return times, data.stat().st_size / 1e6


def main() -> int:
    """Measure, print, and with --check compare with the bound."""
    options = common.parser(__doc__, 3).parse_args()
    times, size = measure(options.runs)
    fastest = {ranks: min(seconds for seconds, _ in found) for ranks, found in times.items()}
    slowest = {ranks: max(seconds for seconds, _ in found) for ranks, found in times.items()}
    cpu = {ranks: min(used for _, used in found) for ranks, found in times.items()}
    speedup = fastest[1] / fastest[2]
    lines = [
        f"seconds for {size:.0f} MB of text, fastest of {options.runs} rounds",
        *(f"  ranks: {n}  {fastest[n]:7.2f}   (to {slowest[n]:.2f}; CPU time {cpu[n]:.2f})" for n in times),
        f"two ranks against one: {speedup:.2f} x (bound {LEAST_SPEEDUP} x)",
    ]  # fmt: skip
    found = {"seconds": {str(ranks): least for ranks, least in fastest.items()}, "megabytes": size, "speedup": speedup,
             "cpu_seconds": {str(ranks): used for ranks, used in cpu.items()}}  # fmt: skip
    return common.conclude(options, found, lines, ok=speedup >= LEAST_SPEEDUP * (1 - NOISE))


if __name__ == "__main__":
    sys.exit(main())
