"""`make bench`: run every measurement, or those that are named, one after another."""

import argparse
import subprocess
import sys
from pathlib import Path

NAMES = (
    "startup",
    "submit",
    "launcher",
    "rebuild",
    "cold",
    "size",
    "container",
    "load",
    "prepare",
    "pictures",
    "training",
    "suite",
)


def main() -> int:
    """Run the scripts; with --check the exit code says whether each kept its bounds."""
    options = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").strip())
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    options.add_argument("--json", action="store_true", help="each prints one JSON object")
    options.add_argument("--check", action="store_true", help="exit 1 if a bound is missed")
    asked = options.parse_args()
    if unknown := [name for name in asked.names if name not in NAMES]:
        options.error(f"{unknown[0]} is no measurement; there are {', '.join(NAMES)}")
    words = [word for word, given in (("--json", asked.json), ("--check", asked.check)) if given]
    codes = []
    for name in asked.names or NAMES:
        print(f"\n== {name}", file=sys.stderr if asked.json else sys.stdout, flush=True)
        script = Path(__file__).parent / f"{name}.py"
        codes.append(subprocess.run([sys.executable, str(script), *words], check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
