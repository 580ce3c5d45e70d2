"""How long a submission to Kubernetes takes to plan, beside torchx's dry run of the same size.

    python bench/submit.py [--runs N] [--json] [--check]

torchx is installed into a folder of its own, which is removed again; that needs a package index. Both run in turn, so
that a busy moment hits both alike.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import common

BIN = Path(sys.executable).parent
TORCHX = ["run", "--workspace", "", "-s", "kubernetes", "--dryrun", "-cfg", "queue=default"]
JOB = ["dist.ddp", "-j", "2x8", "--gpu", "8", "--script", "mine.py"]
STACKCTL = ["submit", "--nodes", "2", "--gpus", "8", "--name", "bench", "--dry-run", "--", "python", "mine.py"]
BOUND = 7.0
"""torchx's time over ours, of medians."""


def seconds(argv: list[str], folder: Path) -> float:
    """Wall time of one whole process."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"STACK_RUNS": str(folder / "runs"), "KUBECONFIG": str(folder / "none")}
    start = time.perf_counter()
    subprocess.run(argv, env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> int:
    """Install torchx, measure both in turn, print, and with --check compare with the bound."""
    options = common.parser(__doc__, 7).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([BIN / "uv", "venv", "--quiet", folder / "venv"], check=True)
        python = str(folder / "venv" / "bin" / "python")
        subprocess.run(
            [BIN / "uv", "pip", "install", "--quiet", "--python", python, "torchx", "kubernetes"], check=True
        )
        ways = {
            "torchx run --dryrun": [str(folder / "venv" / "bin" / "torchx"), *TORCHX, *JOB],
            "stackctl submit --dry-run": [str(BIN / "stackctl"), *STACKCTL],
        }
        # The first round compiles bytecode and is not counted.
        rounds = [{way: seconds(argv, folder) for way, argv in ways.items()} for _ in range(options.runs + 1)][1:]
    medians = {way: statistics.median(times[way] for times in rounds) for way in ways}
    ratio = medians["torchx run --dryrun"] / medians["stackctl submit --dry-run"]
    lines = [f"  {way:36} {median:6.3f} s" for way, median in medians.items()]
    lines.append(f"  {'torchx takes':36} {ratio:6.1f} times as long   bound {BOUND:g}")
    return common.conclude(options, {"seconds": medians, "ratio": ratio, "bound": BOUND}, lines, ok=ratio >= BOUND)


if __name__ == "__main__":
    sys.exit(main())
