"""Training on pictures with TensorFlow: `keras` against a bare `fit`, and `cnn` on two ranks against one.

    python bench/pictures.py [--runs N] [--fit] [--json] [--check]

Pictures a second. `keras` and the bare `fit` train the same network in one container, on made pictures of 28 x 28, an
epoch each in turn; of each the fastest of the rounds counts. Where the bare one's own rounds differ much, other work
shares the CPUs, and CPU seconds are compared in place of pictures a second: each round's ratio, of which the median
counts. Two ranks of `cnn` share this machine's CPUs, so their scaling is printed, and not bounded; `--fit` leaves them
out. Needs Docker with the image built (`make images`).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from bench import common
from stackctl.images.settings import from_env

HERE = Path(__file__).parent
STACKCTL = str(Path(sys.executable).parent / "stackctl")
LEAST_RATIO = 0.97
"""Of `keras` to a bare `fit`."""
STEADY = 1.15
"""The slowest round of a bare `fit` by its fastest, up to which nothing else has used the CPUs."""
STEPS = 300


class Fit(NamedTuple):
    """The two side by side."""

    bare: float
    """Pictures a second."""
    ours: float
    cpu_ratio: float
    """CPU seconds of a bare `fit` by those of `keras`."""
    steady: bool

    @property
    def ratio(self) -> float:
        """What is held against the bound."""
        return self.ours / self.bare if self.steady else self.cpu_ratio


def fitted(rounds: int) -> Fit:
    """Train both in a container."""
    image = f"{from_env(os.environ).image_prefix}tensorflow:cpu"
    argv = ["docker", "run", "--rm", "--network", "none", "--volume", f"{HERE / 'inside'}:/workspace:ro"]
    argv += ["--env", "STACK_DEVICE=cpu", image, "python", "/workspace/keras_fit.py", str(rounds)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return compared(**json.loads(done.stdout.splitlines()[-1]))


def compared(pictures: int, bare: list[list[float]], ours: list[list[float]]) -> Fit:
    """What rounds tell, each of which has seconds and CPU seconds."""
    seconds, mine = ([row[0] for row in rows] for rows in (bare, ours))
    cpu = statistics.median(row[1] / other[1] for row, other in zip(bare, ours, strict=True))
    steady = len(seconds) > 2 and max(seconds) <= STEADY * min(seconds)
    return Fit(pictures / min(seconds), pictures / min(mine), cpu, steady)


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
    parser = common.parser(__doc__, 5)
    parser.add_argument("--fit", action="store_true", help="leave out cnn")
    options = parser.parse_args()
    fit = fitted(options.runs)
    how = "by time" if fit.steady else "by CPU seconds: other work shares the machine"
    lines = [
        f"pictures a second on {len(os.sched_getaffinity(0))} CPUs, fastest of {options.runs} rounds",
        f"  a bare fit    {fit.bare:9,.0f}",
        f"  keras         {fit.ours:9,.0f}   {fit.ratio:.3f} of it {how}, bound {LEAST_RATIO}",
    ]
    cnn = {} if options.fit else {ranks: several_workers(ranks) for ranks in (1, 2)}
    lines += [f"  cnn, {ranks} rank{'s' * (ranks > 1):<2}  {found:9,.0f}" for ranks, found in cnn.items()]
    if cnn:
        lines.append(f"  two ranks against one: {cnn[2] / cnn[1]:.2f} x")
    found = {"fit": fit._asdict(), "ratio": fit.ratio, "cnn": {str(ranks): speed for ranks, speed in cnn.items()}}
    return common.conclude(options, found, lines, ok=fit.ratio >= LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
