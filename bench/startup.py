"""How long the command line takes to answer, beside the interpreter alone.

    python bench/startup.py [--runs N] [--json] [--check]

The commands run in turn, so that a busy moment hits all alike. The first round compiles bytecode and is not counted.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import common

STACKCTL = str(Path(sys.executable).parent / "stackctl")
WAYS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import click'": [sys.executable, "-c", "import click"],
    "stackctl --help": [STACKCTL, "--help"],
    "stackctl run --dry-run": [STACKCTL, "run", "gpt", "--nodes", "2", "--procs", "2", "--dry-run"],
    "stackctl run --on compose --dry-run": [STACKCTL, "run", "gpt", "--nodes", "2", "--on", "compose", "--dry-run"],
    "stackctl submit --dry-run": [STACKCTL, "submit", "--nodes", "2", "--gpus", "8", "--dry-run"],
}
BOUNDS = {"stackctl --help": 0.08, "stackctl run --dry-run": 0.12, "stackctl submit --dry-run": 0.12}
"""Seconds, of the fastest round: other work on the machine only adds."""
PROBE = "python -c 'import click'"
PROBE_SECONDS = 0.048
"""Its median on the machine that the bounds are of; where it takes longer, so may the commands."""


def seconds(argv: list[str]) -> float:
    """Wall time of one whole process."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> int:
    """Measure, print, and with --check compare with the bounds."""
    options = common.parser(__doc__, 15).parse_args()
    rounds = [{way: seconds(argv) for way, argv in WAYS.items()} for _ in range(options.runs + 1)][1:]
    fastest = {way: min(times[way] for times in rounds) for way in WAYS}
    slower = max(1.0, statistics.median(times[PROBE] for times in rounds) / PROBE_SECONDS)
    bare = fastest["python -c pass"]
    bounds = {way: f"   bound {bound} s" for way, bound in BOUNDS.items()}
    lines = [
        f"  {way:36} {least:6.3f} s   {least / bare:4.1f} x the interpreter{bounds.get(way, '')}"
        for way, least in fastest.items()
    ]
    lines.append(f"  the bounds hold times {slower:.2f}: what {PROBE} takes here, against {PROBE_SECONDS} s")
    found = {"seconds": fastest, "bounds": BOUNDS, "slower": slower}
    return common.conclude(options, found, lines, ok=all(fastest[way] <= most * slower for way, most in BOUNDS.items()))


if __name__ == "__main__":
    sys.exit(main())
