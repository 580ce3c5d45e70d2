"""The same training as a process and in a container: tokens per second, in turn.

    python bench/container.py [--runs N] [--steps N] [--json] [--check]

Needs Docker with the image built (`make images`) and torch in this environment (`make train-env`), at the same version.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import common

STACKCTL = str(Path(sys.executable).parent / "stackctl")
LEAST_RATIO = 0.98
"""Container over process."""


def tokens_per_second(backend: str, steps: int) -> float:
    """Train once; the trainer's own figure, start-up and warm-up excluded."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [STACKCTL, "run", "gpt", "--procs", "2", "--on", backend, "--out", f"{folder}/run", "--json"]
        words = ["--", "--steps", str(steps), "--eval-every", str(steps), "--sample-tokens", "1"]
        done = subprocess.run([*argv, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        return float(json.loads(done.stdout)["result"]["tokens_per_second"])


def main() -> int:
    """Measure, print, and with --check compare with the bound."""
    parser = common.parser(__doc__, 5, "pairs")
    parser.add_argument("--steps", type=int, default=60, help="steps of each training (default 60)")
    options = parser.parse_args()
    pairs = [{on: tokens_per_second(on, options.steps) for on in ("local", "compose")} for _ in range(options.runs)]
    ratio = statistics.median(pair["compose"] / pair["local"] for pair in pairs)
    medians = {on: statistics.median(pair[on] for pair in pairs) for on in ("local", "compose")}
    lines = [
        f"  process   {medians['local']:10,.0f} tokens/s",
        f"  container {medians['compose']:10,.0f} tokens/s",
        f"  ratio     {ratio:10.3f}   median of {options.runs} pairs, bound {LEAST_RATIO}",
    ]
    return common.conclude(options, {"tokens_per_second": medians, "ratio": ratio}, lines, ok=ratio >= LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
