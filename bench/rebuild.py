"""How long a rebuild of the image takes: with nothing changed, and after an edit of the payload.

    python bench/rebuild.py [--runs N] [--json] [--check]

Beside it the same no-op as a bare `docker buildx build`, in turn. Needs Docker, and the image built once before.
"""

import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import common

ROOT = Path(__file__).resolve().parents[1]
BARE = "stack-bench:bare"
BOUNDS = {"no-op": 2.0, "payload edit": 3.0}
"""Seconds, medians."""


def build(root: Path, *words: str) -> float:
    """Build the pytorch CPU image from a checkout; seconds of wall time."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from stackctl.cli.main import main; main()"
    argv = [sys.executable, "-c", code, str(root), "build", "pytorch", "--variant", "cpu", *words]
    start = time.perf_counter()
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    return took


def bare(root: Path) -> float:
    """The same build by buildx alone; seconds of wall time."""
    argv = subprocess.run(
        [str(Path(sys.executable).parent / "stackctl"), "build", "pytorch", "--variant", "cpu", "--dry-run"],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    words = shlex.split(argv.replace("stack-pytorch:cpu", BARE))[:-1]
    start = time.perf_counter()
    subprocess.run([*words, str(root)], capture_output=True, check=True)
    return time.perf_counter() - start


def measure(runs: int) -> dict[str, list[float]]:
    """Seconds of each kind of rebuild."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache"))
        build(copy)
        times: dict[str, list[float]] = {"no-op": [], "payload edit": [], "bare buildx, no-op": []}
        for number in range(runs):
            times["no-op"].append(build(copy))
            times["bare buildx, no-op"].append(bare(ROOT))
            (copy / "images" / "stackrt" / "edited.py").write_text(f"NUMBER = {number}\n{time.time()}\n")
            times["payload edit"].append(build(copy))
        subprocess.run(["docker", "image", "rm", BARE], capture_output=True, check=True)
        build(ROOT)  # leave the image as this checkout has it
        return times


def main() -> int:
    """Measure, print, and with --check compare with the bounds."""
    options = common.parser(__doc__, 5).parse_args()
    medians = {way: statistics.median(seconds) for way, seconds in measure(options.runs).items()}
    bounds = {way: f"   bound {bound} s" for way, bound in BOUNDS.items()}
    lines = [f"  {way:20} {median:6.2f} s{bounds.get(way, '')}" for way, median in medians.items()]
    good = all(medians[way] <= bound for way, bound in BOUNDS.items())
    return common.conclude(options, {"seconds": medians, "bounds": BOUNDS}, lines, ok=good)


if __name__ == "__main__":
    sys.exit(main())
