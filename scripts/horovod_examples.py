"""Run Horovod's own examples, from a checkout of its repository and as they are, on two nodes of an image of ours.

Those that train on MNIST get digits that ship with the image (`--data digits`), or a set that `stackctl data fetch` has
brought. The exit code is 0 if every example ran to its end.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from stackctl.errors import InvalidInput, StackError

HERE = Path(__file__).resolve().parent / "upstream"
RUNNER = HERE / "with_pictures.py"


def main() -> int:
    """Parse, run, report; returns the exit code."""
    known = tomllib.loads((HERE / "known.toml").read_text(encoding="utf-8"))
    files: dict[str, list[str]] = known["examples"]["files"]
    parser = argparse.ArgumentParser(description="Run Horovod's own examples on two nodes of an image of ours.")
    parser.add_argument("checkout", type=Path, help=f"a checkout of {known['repository']} at {known['commit'][:12]}")
    parser.add_argument("--file", action="append", choices=list(files), help="only this example; may be given again")
    parser.add_argument("--data", default="digits", metavar="SET", help="what stands in for MNIST (default digits)")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that an example may take (default 3600)")
    options = parser.parse_args()
    verdicts: dict[str, str] = {}
    try:
        folder = _examples(options.checkout, known["examples"]["folder"])
        for file in options.file or files:
            print(f"{file}: on two nodes", flush=True)
            verdicts[file] = _run(folder / file, known["examples"]["image"], options.data, files[file], options.limit)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for file, verdict in verdicts.items():
        print(f"{file:44}{verdict}")
    return 0 if all(verdict.startswith("passed") for verdict in verdicts.values()) else 1


def _examples(checkout: Path, folder: str) -> Path:
    if not (checkout / folder).is_dir():
        raise InvalidInput(f"there is no folder {folder}", where=str(checkout), hint="clone Horovod's repository")
    return checkout.resolve() / folder


def _run(example: Path, image: str, pictures: str, arguments: list[str], limit: float) -> str:
    """Run an example; what became of it."""
    if not example.is_file():
        return "failed: it is not in the checkout"
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        work.chmod(0o755)  # the container is another user
        for path in (example, RUNNER):
            shutil.copy(path, work)
        stackctl = str(Path(sys.executable).with_name("stackctl"))
        argv = [stackctl, "run", "--image", image, "--out", str(work / "out")]
        # They are written for Keras 2.
        argv += ["--on", "compose", "--nodes", "2", "--procs", "1", "--env", "TF_USE_LEGACY_KERAS=1"]
        argv += ["--", "python", RUNNER.name, pictures, example.name, *arguments]
        begun = time.monotonic()
        run = subprocess.Popen(argv, cwd=work)
        try:
            code = run.wait(limit)
        except subprocess.TimeoutExpired:
            run.terminate()  # stackctl ends its containers
            run.wait()
            return f"not done after {limit:.0f} s"
        took = f"{time.monotonic() - begun:.0f} s"
        return f"passed in {took}" if code == 0 else f"failed with exit code {code} after {took}"


if __name__ == "__main__":
    sys.exit(main())
