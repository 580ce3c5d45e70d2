"""How long the command line takes to answer, beside the interpreter alone.

    python bench/startup.py [--runs N] [--json] [--check]

The commands run in turn, so that a busy moment hits all alike. The first round compiles bytecode and is not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="rounds (default 15)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bound is missed")
    arguments = parser.parse_args()
    rounds = [{way: seconds(argv) for way, argv in WAYS.items()} for _ in range(arguments.runs + 1)][1:]
    fastest = {way: min(times[way] for times in rounds) for way in WAYS}
    slower = max(1.0, statistics.median(times[PROBE] for times in rounds) / PROBE_SECONDS)
    good = all(fastest[way] <= bound * slower for way, bound in BOUNDS.items())
    if arguments.json:
        print(json.dumps({"seconds": fastest, "bounds": BOUNDS, "slower": slower, "runs": arguments.runs, "ok": good}))
    else:
        bare = fastest["python -c pass"]
        for way, least in fastest.items():
            bound = f"   bound {BOUNDS[way]} s" if way in BOUNDS else ""
            print(f"  {way:36} {least:6.3f} s   {least / bare:4.1f} x the interpreter{bound}")
        print(f"  the bounds hold times {slower:.2f}: what {PROBE} takes here, against {PROBE_SECONDS} s")
    return 0 if good or not arguments.check else 1


if __name__ == "__main__":
    sys.exit(main())
