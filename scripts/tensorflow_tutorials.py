"""Run the multi-worker tutorials of TensorFlow's documentation, unmodified, on two nodes.

    python scripts/tensorflow_tutorials.py CHECKOUT

CHECKOUT is one of github.com/tensorflow/docs. Its notebooks write files and start two workers with them; here the files
are taken as they are, and `stackctl run --on compose` starts them in the image `tensorflow`. Their MNIST is a data set
that `stackctl data` has fetched, by default fashion-mnist: pictures of the same size and number. They are written for
Keras 2, so tf.keras is tf-keras (TF_USE_LEGACY_KERAS=1); `--keras-3` shows what happens without.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stackctl.errors import InvalidInput, StackError

FOLDER = "site/en/tutorials/distribute"
TUTORIALS = ("multi_worker_with_keras", "multi_worker_with_ctl")
STACKCTL = str(Path(sys.executable).parent / "stackctl")
STAND_IN = Path(__file__).resolve().parent / "upstream" / "tensorflow" / "sitecustomize.py"
MAGIC = "%%writefile "


def main() -> int:
    """Parse, run, report; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run TensorFlow's multi-worker tutorials, unmodified, on two nodes.")
    parser.add_argument("checkout", type=Path, help="a checkout of github.com/tensorflow/docs")
    parser.add_argument("--data", default="fashion-mnist", help="in place of MNIST (default fashion-mnist)")
    parser.add_argument("--keras-3", action="store_true", help="with Keras 3, under which they fail")
    options = parser.parse_args()
    failed = 0
    try:
        for name in TUTORIALS:
            code, said = run(options.checkout, name, options.data, legacy=not options.keras_3)
            failed += code != 0
            print(f"{name:28} {'passed' if code == 0 else f'failed with exit code {code}'}: {said}", flush=True)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if failed else 0


def run(checkout: Path, name: str, data: str, *, legacy: bool) -> tuple[int, str]:
    """Run one tutorial: its exit code, and what it said last.

    Raises:
        InvalidInput: The checkout has no such tutorial.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        work.chmod(0o755)  # the containers' user is another
        for file, text in files(checkout / FOLDER / f"{name}.ipynb"):
            (work / file).write_text(text, encoding="utf-8")
        (work / "stand_in").mkdir()
        shutil.copy(STAND_IN, work / "stand_in")
        settings = {"PYTHONPATH": "/workspace/stand_in:/workspace", "TUTORIAL_DATA": data, "TF_CPP_MIN_LOG_LEVEL": "2"}
        settings |= {"TF_USE_LEGACY_KERAS": "1"} if legacy else {}
        argv = [STACKCTL, "run", "--image", "tensorflow", "--framework", "tensorflow", "--on", "compose"]
        argv += ["--nodes", "2", "--procs", "1", "--out", str(work / "out")]
        argv += [word for key, value in settings.items() for word in ("--env", f"{key}={value}")]
        argv += ["--", "python", "main.py"]
        done = subprocess.run(argv, cwd=work, env=dict(os.environ), capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if "accuracy" in line]
    wrong = [line for line in done.stderr.splitlines() if "failed first" in line]
    told = said[-1:] if done.returncode == 0 else wrong[:1]
    return done.returncode, (told or [done.stderr.strip()])[0][-400:]


def files(notebook: Path) -> Iterator[tuple[str, str]]:
    """The files that a notebook writes.

    Raises:
        InvalidInput: It is not there, or writes none.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"cannot be read: {error}", where=str(notebook), hint="clone tensorflow/docs") from None
    found = False
    for text in ("".join(cell["source"]) for cell in cells):
        if text.startswith(MAGIC):
            first, _, rest = text.partition("\n")
            found = True
            yield Path(first.removeprefix(MAGIC).strip()).name, rest
    if not found:
        raise InvalidInput("writes no files", where=str(notebook), hint="take a newer checkout of tensorflow/docs")


if __name__ == "__main__":
    sys.exit(main())
