"""How long an image takes from nothing: no layer, no package and no Debian archive at hand.

    python bench/cold.py [IMAGE-VARIANT…] [--runs N] [--json] [--check]

Beside it, in turn with it, `uv pip install` of the same locks on this machine, also from nothing; of each the fastest
round counts, since other work on a machine only adds to a time. Horovod's images are theirs and a compilation that uv
cannot do, so nothing on the host is like it. Needs Docker, a package index, and for a CUDA image some 12 GB of disk.
What it made is removed.
"""

import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from bench import common
from stackctl.images import catalog, settings
from stackctl.images.lock_list import lock_of

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "stack-bench-"
BOUND = 2.0
"""Times the installation on the host."""


def on_the_host(target: catalog.Target, work: Path) -> float:
    """Install an image's locks into a virtual environment of this machine; seconds of wall time."""
    uv = str(Path(sys.executable).parent / "uv")
    env = {**os.environ, "UV_CACHE_DIR": str(work / "cache")}
    env.pop("VIRTUAL_ENV", None)
    subprocess.run([uv, "venv", "--quiet", "--python", target.base.python, str(work / "venv")], env=env, check=True)
    start = time.perf_counter()
    for lock in (lock_of(target, "framework"), lock_of(target, "packages")):
        options = ["--quiet", "--no-deps", "--require-hashes", "--compile-bytecode", "--python", str(work / "venv")]
        if lock.kind == "framework" and target.variant.index:
            options += source(target)
        subprocess.run(
            [uv, "pip", "install", *options, "--requirements", str(ROOT / "images" / "locks" / lock.file)],
            env=env,
            check=True,
        )
    return time.perf_counter() - start


def source(target: catalog.Target) -> list[str]:
    """Where the framework's own packages come from, as a build takes them: the wheelhouse, else their index."""
    chosen = settings.from_env(os.environ)
    if chosen.wheelhouse:
        return ["--find-links", str(chosen.wheelhouse)]
    return ["--default-index", chosen.torch_index or target.variant.index]


def as_an_image(target: catalog.Target, work: Path) -> float:
    """Build the image with every cache empty; seconds of wall time."""
    checkout = work / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache"))
    dockerfile = checkout / "images" / "dockerfiles" / target.dockerfile
    fresh = uuid.uuid4().hex[:8]
    dockerfile.write_text(re.sub(r"(type=cache,id=[^,]+)", rf"\1-{fresh}", dockerfile.read_text()))
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from stackctl.cli.main import main; main()"
    words = ["build", target.name, "--variant", target.variant_name, "--no-cache"]
    before = records()
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, str(checkout), *words],
        env={**os.environ, "STACK_IMAGE_PREFIX": PREFIX},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    docker("image", "rm", f"{PREFIX}{target.name}:{target.variant_name}")
    while made := records() - before:
        for record in made:
            docker("builder", "prune", "--all", "--force", "--filter", f"id={record}")
        if records() - before == made:  # another build uses them
            break
    return took


def timed(measure: Callable[[catalog.Target, Path], float], target: catalog.Target) -> float:
    """Seconds of one measurement, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(target, Path(folder))


def docker(*words: str) -> str:
    """Run a docker command; returns its output."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


def records() -> set[str]:
    """Identities of what the builder keeps: layers, and the content of cache mounts."""
    return set(re.findall(r"^ID:\s+(\S+)", docker("buildx", "du", "--verbose"), re.MULTILINE))


def main() -> int:
    """Measure, print, and with --check compare with the bound."""
    parser = common.parser(__doc__, 2, "how often both are measured")
    parser.add_argument("images", nargs="*", default=["pytorch-cpu"], help="such as pytorch-cuda (default pytorch-cpu)")
    options = parser.parse_args()
    targets = {target.key: target for target in catalog.targets(catalog.load()) if target.horovod is None}
    if unknown := [key for key in options.images if key not in targets]:
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(targets)}")
    times: dict[str, dict[str, float]] = {}
    for key in options.images:
        host = image = math.inf
        for _ in range(options.runs):
            host = min(host, timed(on_the_host, targets[key]))
            image = min(image, timed(as_an_image, targets[key]))
        times[key] = {"uv on the host": host, "image": image, "ratio": image / host}
    lines = [
        f"  {key:20} " + "   ".join(f"{name} {value:.2f}" for name, value in row.items()) for key, row in times.items()
    ]
    lines.append(f"  bound: {BOUND} times uv on the host")
    good = all(row["ratio"] <= BOUND for row in times.values())
    return common.conclude(options, {"seconds": times, "bound": BOUND}, lines, ok=good)


if __name__ == "__main__":
    sys.exit(main())
