"""Training on pictures with TensorFlow: `keras` against a bare `fit`, and `cnn` on two ranks against one.

    python bench/pictures.py [--runs N] [--json] [--check]

Pictures a second. `keras` and the bare `fit` train the same network in the image on made pictures of 28 x 28, in turn;
of each the fastest of the rounds counts. Two ranks of `cnn` share this machine's CPUs, so their scaling is printed, and
not bounded. Needs Docker with the image built (`make images`).
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import common
from stackctl.images.settings import from_env

HERE = Path(__file__).parent
STACKCTL = str(Path(sys.executable).parent / "stackctl")
LEAST_RATIO = 0.97
"""Of `keras` to a bare `fit`."""
STEPS = 300


def fitted(kind: str) -> float:
    """Pictures a second of one `fit` in a container."""
    image = f"{from_env(os.environ).image_prefix}tensorflow:cpu"
    argv = ["docker", "run", "--rm", "--network", "none", "--volume", f"{HERE / 'inside'}:/workspace:ro"]
    argv += ["--env", "STACK_DEVICE=cpu", image, "python", "/workspace/keras_fit.py", kind, str(STEPS)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def several_workers(ranks: int) -> float:
    """Pictures a second of `cnn`, all ranks together."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [STACKCTL, "run", "cnn", "--procs", str(ranks), "--on", "compose", "--out", f"{folder}/run", "--json"]
        done = subprocess.run([*argv, "--", "--steps", str(STEPS)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        return float(json.loads(done.stdout)["result"]["samples_per_second"])


def main() -> int:
    """Measure, print, and with --check compare with the bound."""
    options = common.parser(__doc__, 3).parse_args()
    rounds = [{kind: fitted(kind) for kind in ("bare", "ours")} for _ in range(options.runs)]
    fastest = {kind: max(found[kind] for found in rounds) for kind in ("bare", "ours")}
    ratio = fastest["ours"] / fastest["bare"]
    cnn = {ranks: several_workers(ranks) for ranks in (1, 2)}
    lines = [
        f"pictures a second on {len(os.sched_getaffinity(0))} CPUs, fastest of {options.runs} rounds",
        f"  a bare fit    {fastest['bare']:9,.0f}",
        f"  keras         {fastest['ours']:9,.0f}   {ratio:.3f} of it, bound {LEAST_RATIO}",
        *(f"  cnn, {ranks} rank{'s' * (ranks > 1):<2}  {found:9,.0f}" for ranks, found in cnn.items()),
        f"  two ranks against one: {cnn[2] / cnn[1]:.2f} x",
    ]
    found = {"fit": fastest, "ratio": ratio, "cnn": {str(ranks): speed for ranks, speed in cnn.items()}}
    return common.conclude(options, found, lines, ok=ratio >= LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
