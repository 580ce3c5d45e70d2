"""How long until the last of four ranks has printed: started by hand, by the launcher, and by torchrun.

    python bench/launcher.py [--runs N] [--json] [--check]

One round starts all three, one after another, so that a busy moment hits all alike; of each the fastest of the rounds
counts, since other work on the machine only adds. The first round only compiles bytecode and is not counted. Without
torch the comparison with torchrun is left out.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import common

IMAGES = Path(__file__).parents[1] / "images"
RANKS = 4
SCRIPT = r"import os; os.write(1, b'first line\n')"
MOST_OVERHEAD = 0.15
"""Seconds that the launcher may add to starting the ranks by hand."""
LEAST_SPEEDUP = 10.0
"""How many times sooner than with torchrun the last rank must print."""


def last_line(commands: list[list[str]], folder: str) -> float:
    """Start commands at once; seconds until `RANKS` first lines have come, the processes then awaited untimed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STACK_")}
    env |= {"PYTHONPATH": str(IMAGES), "STACK_PROCS": str(RANKS), "STACK_DEVICE": "cpu", "STACK_OUT": folder}
    env["TMPDIR"] = folder  # torchrun leaves a folder there
    # Users have bytecode; with this set every import would compile again.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    readable, writable = os.pipe()
    started = time.perf_counter()
    processes = [subprocess.Popen(command, env=env, stdout=writable, stderr=subprocess.DEVNULL) for command in commands]
    os.close(writable)
    with open(readable, "rb") as output:  # noqa: PTH123 - a descriptor
        seen, took = 0, 0.0
        for line in output:
            seen += b"first line" in line
            if seen == RANKS and not took:
                took = time.perf_counter() - started
    codes = [process.wait(60) for process in processes]
    if seen < RANKS or any(codes):
        raise SystemExit(f"did not run: {' '.join(commands[0])}")
    return took


def measure(runs: int) -> dict[str, list[float]]:
    """Seconds to the last rank's first line, by way of starting."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(SCRIPT)
        rank = [sys.executable, str(script)]
        ways = {"by hand": [rank] * RANKS, "launcher": [[sys.executable, "-m", "stackrt.launch", "--", *rank]]}
        if importlib.util.find_spec("torch"):
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(RANKS), str(script)]
            ways["torchrun"] = [torchrun]
        rounds = [{way: last_line(commands, folder) for way, commands in ways.items()} for _ in range(runs + 1)]
    return {way: [times[way] for times in rounds[1:]] for way in ways}


def main() -> int:
    """Measure, print, and with --check compare with the bounds."""
    options = common.parser(__doc__, 7).parse_args()
    times = measure(options.runs)
    fastest = {way: min(seconds) for way, seconds in times.items()}
    overhead = fastest["launcher"] - fastest["by hand"]
    speedup = fastest["torchrun"] / fastest["launcher"] if "torchrun" in fastest else None
    against = f"{speedup:.1f} x sooner (bound {LEAST_SPEEDUP:g} x)" if speedup else "not measured: torch is absent"
    lines = [
        f"seconds until the last of {RANKS} ranks has printed, fastest of {options.runs} rounds",
        *(f"  {way:10} {least:7.3f}   (to {max(times[way]):.3f})" for way, least in fastest.items()),
        f"launcher over by hand: +{overhead:.3f} s (bound {MOST_OVERHEAD} s)",
        f"launcher against torchrun: {against}",
    ]
    found = {"seconds": fastest, "overhead_seconds": overhead, "speedup_over_torchrun": speedup, "ranks": RANKS}
    good = overhead <= MOST_OVERHEAD and (speedup is None or speedup >= LEAST_SPEEDUP)
    return common.conclude(options, found, lines, ok=good)


if __name__ == "__main__":
    sys.exit(main())
