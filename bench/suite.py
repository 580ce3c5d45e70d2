"""How long the suite takes on two cores, and how much of that no check takes: the suite's own time.

    python bench/suite.py [IMAGE] [--runs N] [--json] [--check]

Its own time is all but that of the checks and of starting a container: Python's start, the report, the gaps between
checks. Medians. Needs Docker, and the image built.
"""

import json
import os
import statistics
import subprocess
import sys
import time

from bench import common
from stackctl.images import catalog
from stackctl.images.settings import from_env

MOST_SECONDS = 60.0
"""Of the CPU suite on the pytorch image."""
MOST_OWN_SECONDS = 2.0
CONTAINER = ["docker", "run", "--rm", "--shm-size", "1g", "--cpuset-cpus", "0,1"]
SUITE = ["python", "-P", "-m", "stackrt.checks", "--json", "-", "--report-only"]


def seconds_of(argv: list[str]) -> tuple[float, str]:
    """Wall time of a command, and what it prints."""
    begun = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - begun, done.stdout


def measure(tag: str) -> dict[str, float]:
    """One run: `seconds` from the start of its container, and `own`."""
    start, _ = seconds_of([*CONTAINER, tag, "true"])
    whole, text = seconds_of([*CONTAINER, tag, *SUITE])
    report = json.loads(text)
    return {"seconds": whole, "own": whole - start - (report["seconds"] - report["overhead_seconds"])}


def main() -> int:
    """Measure, print, and with --check compare with the bounds."""
    parser = common.parser(__doc__, 3)
    parser.add_argument("image", nargs="?", default="pytorch", help="of the catalog (default pytorch)")
    options = parser.parse_args()
    (target,) = catalog.targets(catalog.load(), options.image, "cpu", from_env(os.environ).image_prefix)
    runs = [measure(target.tag) for _ in range(options.runs)]
    found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    lines = [
        f"  whole suite   {found['seconds']:6.1f} s   bound {MOST_SECONDS:g} s",
        f"  its own part  {found['own']:6.1f} s   bound {MOST_OWN_SECONDS:g} s",
    ]
    good = found["seconds"] <= MOST_SECONDS and found["own"] <= MOST_OWN_SECONDS
    return common.conclude(options, {"image": target.tag, **found}, lines, ok=good)


if __name__ == "__main__":
    sys.exit(main())
