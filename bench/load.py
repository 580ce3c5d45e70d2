"""How fast one rank trains beside other work and below a quota, against the same with OpenMP's own settings.

    python bench/load.py [--runs N] [--json] [--check]

`alone` is the reference GPT with one rank; `beside` the same with one busy loop on the machine. Of a few rounds, in
which all take turns, the median counts. The quota is measured in a container, where Docker answers and the image is
built: with one CPU's worth of time, threads of all CPUs only wait.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import common
from stackctl.engines import docker
from stackctl.errors import MissingHere
from stackctl.images import catalog
from stackctl.images.settings import from_env

IMAGES = Path(__file__).parents[1] / "images"
STEPS = 40
TRAIN = ["python", "-P", "-m", "stackrt.train.gpt", "--steps", str(STEPS), "--eval-every", "1000",
         "--sample-tokens", "0", "--eval-tokens", "256"]  # fmt: skip
OPENMP = {"GOMP_SPINCOUNT": "300000"}
"""libgomp's default (GOMP_SPINCOUNT, https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html)."""
LEAST_BESIDE = 0.5
"""Of the speed alone, beside one busy loop."""
LEAST_ALONE = 0.85
"""Of the speed alone with OpenMP's own settings."""
NOISE = 0.1
"""How far the median of two runs strays on a shared machine: with --check the bounds are held within it."""


@contextmanager
def busy_loop() -> Iterator[None]:
    """Within the block one process uses a CPU."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def clean() -> dict[str, str]:
    """The environment without settings of threads."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("STACK_", "OMP_", "GOMP_"))}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    return env | {"PYTHONPATH": str(IMAGES), "STACK_DEVICE": "cpu"}


def tokens_per_second(settings: dict[str, str]) -> float:
    """Train one rank through the launcher."""
    with tempfile.TemporaryDirectory() as folder:
        env = clean() | settings | {"STACK_OUT": folder}
        argv = [sys.executable, "-m", "stackrt.launch", "--", *TRAIN]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"did not run: {done.stdout}{done.stderr}")
        return float(json.loads((Path(folder) / "result.json").read_text())["tokens_per_second"])


def below_quota(image: str, settings: dict[str, str]) -> float:
    """The same in a container that gets one CPU's worth of time."""
    given = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    tell = "import json; print(json.load(open('/out/result.json'))['tokens_per_second'])"
    script = f'{shlex.join(TRAIN)} >/dev/null && python -c "{tell}"'
    argv = ["docker", "run", "--rm", "--network", "none", "--cpus", "1", "--env", "STACK_DEVICE=cpu", *given, image]
    argv += ["python", "-P", "-m", "stackrt.launch", "--", "sh", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"did not run: {done.stdout}{done.stderr}")
    return float(done.stdout.split()[-1])


def measure(runs: int, *, bounds_only: bool) -> dict[str, float]:
    """Tokens a second by situation; with `bounds_only` of those that have a bound."""
    image = "" if bounds_only else built_image()
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for _ in range(runs):
        add("alone", tokens_per_second({}))
        add("alone, OpenMP's settings", tokens_per_second(OPENMP))
        with busy_loop():
            add("beside", tokens_per_second({}))
            if not bounds_only:
                add("beside, OpenMP's settings", tokens_per_second(OPENMP))
        if image:
            add("quota of 1 CPU", below_quota(image, {}))
            cpus = {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
            add("quota of 1 CPU, a thread a core", below_quota(image, OPENMP | cpus))
    return {name: statistics.median(values) for name, values in found.items()}


def built_image() -> str:
    """The PyTorch image of this machine; empty where there is none."""
    (target,) = catalog.targets(catalog.load(), "pytorch", "cpu", from_env(os.environ).image_prefix)
    try:
        docker.require()
    except MissingHere:
        return ""
    return target.tag if docker.image(target.tag) else ""


def main() -> int:
    """Measure, print, and with --check compare with the bounds."""
    options = common.parser(__doc__, 3).parse_args()
    found = measure(options.runs, bounds_only=options.check)
    beside, alone = found["beside"] / found["alone"], found["alone"] / found["alone, OpenMP's settings"]
    lines = [
        *(f"  {name:32} {speed:9,.0f} tokens/s" for name, speed in found.items()),
        f"beside one busy loop: {beside:.2f} of alone (bound {LEAST_BESIDE})",
        f"alone: {alone:.2f} of OpenMP's own settings (bound {LEAST_ALONE})",
    ]
    if "quota of 1 CPU" not in found and not options.check:
        lines.append("quota: not measured: Docker does not answer, or the pytorch image is not built")
    good = beside >= LEAST_BESIDE * (1 - NOISE) and alone >= LEAST_ALONE * (1 - NOISE)
    return common.conclude(options, {"tokens_per_second": found, "beside": beside, "alone": alone}, lines, ok=good)


if __name__ == "__main__":
    sys.exit(main())
