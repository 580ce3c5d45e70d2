"""How much sooner two processes prepare data than one.

    python bench/prepare.py [--runs N] [--json] [--check]

The same text, with a tokenizer that was learned before, by one rank and by two under the launcher, one after another in
each round; of each the fastest of the rounds counts, since other work on the machine only adds. Each round also runs
one rank twice at once, two programs that share nothing: what two processes can gain here at all, which is less than
2 x where CPUs are two threads of one core. Needs two CPUs, and the trainers' packages.
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
from stackrt.train import vocabulary

IMAGES = Path(__file__).parents[1] / "images"
TEXT = IMAGES / "stackrt" / "train" / "data" / "shakespeare.txt"
COPIES = 30
"""Of the plays: 38 MB, so that starting Python counts little."""
SHARDS = 16
"""As many for each rank: a shard more for one of them is time that the other waits."""
LEAST_SPEEDUP = 1.7
NEEDED = 1.8
"""What two programs that share nothing must gain for the whole bound: two CPUs with less are no two CPUs."""
NOISE = 0.1
"""How far the bound goes down where they gain less."""


def start(ranks: int, words: list[str], folder: Path) -> "subprocess.Popen[str]":
    """Begin to prepare, in a new folder."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STACK_")}
    env |= {"PYTHONPATH": str(IMAGES), "STACK_PROCS": str(ranks), "STACK_DEVICE": "cpu", "STACK_OUT": str(folder)}
    command = [sys.executable, "-m", "stackrt.launch", "--", sys.executable, "-m", "stackrt.train.prepare", *words]
    command += ["--to", str(folder / "shards")]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def seconds(ranks: int, words: list[str], *folders: Path) -> tuple[float, float]:
    """Prepare in new folders at once: the time from the launchers' start to their end, and CPU time, of all."""
    began, used = time.perf_counter(), cpu_seconds()
    for process in [start(ranks, words, folder) for folder in folders]:
        said, _ = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"did not run: {said}")
    took = time.perf_counter() - began, cpu_seconds() - used
    for folder in folders:
        shutil.rmtree(folder / "shards")
    return took


def cpu_seconds() -> float:
    """CPU time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(runs: int) -> tuple[dict[str, list[tuple[float, float]]], float]:
    """Seconds and CPU seconds by way, and the megabytes of text."""
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / part for part in ("a", "b")]
        for folder in folders:
            folder.mkdir()
        data, tokenizer = Path(name) / "data.txt", Path(name) / "tokenizer.json"
        data.write_bytes(TEXT.read_bytes() * COPIES)
        tokenizer.write_text(vocabulary.train_bpe(TEXT.read_bytes(), 8000))
        words = ["--data", str(data), "--shard-bytes", str(data.stat().st_size // SHARDS + 1), "--tokenizer",
                 str(tokenizer)]  # fmt: skip
        times: dict[str, list[tuple[float, float]]] = {"one": [], "two": [], "apart": []}
        for _ in range(runs):
            times["one"].append(seconds(1, words, folders[0]))
            times["two"].append(seconds(2, words, folders[0]))
            times["apart"].append(seconds(1, words, *folders))
        return times, data.stat().st_size / 1e6


def main() -> int:
    """Measure, print, and with --check compare with the bound."""
    options = common.parser(__doc__, 3).parse_args()
    times, size = measure(options.runs)
    fastest = {way: min(seconds for seconds, _ in found) for way, found in times.items()}
    slowest = {way: max(seconds for seconds, _ in found) for way, found in times.items()}
    cpu = {way: min(used for _, used in found) for way, found in times.items()}
    speedup, possible = fastest["one"] / fastest["two"], min(2.0, 2 * fastest["one"] / fastest["apart"])
    least = LEAST_SPEEDUP if possible >= NEEDED else LEAST_SPEEDUP * (1 - NOISE)
    told = {"one": "one rank", "two": "two ranks", "apart": "two programs"}
    lines = [
        f"seconds for {size:.0f} MB of text, fastest of {options.runs} rounds",
        *(f"  {told[way]:13} {least:7.2f}   (to {slowest[way]:.2f}; CPU time {cpu[way]:.2f})"
          for way, least in fastest.items()),
        f"two ranks against one: {speedup:.2f} x of {possible:.2f} x (bound {least:.2f} x)",
    ]  # fmt: skip
    found = {"seconds": fastest, "megabytes": size, "speedup": speedup, "possible": possible, "cpu_seconds": cpu}
    return common.conclude(options, found, lines, ok=speedup >= least)


if __name__ == "__main__":
    sys.exit(main())
