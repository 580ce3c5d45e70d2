"""`make bench`: run every measurement, one after another.

python -m bench [--check]
"""

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "startup.py",
    "submit.py",
    "launcher.py",
    "rebuild.py",
    "cold.py",
    "size.py",
    "container.py",
    "load.py",
    "prepare.py",
    "training.py",
    "pictures.py",
    "suite.py",
)


def main() -> int:
    """Run the scripts; with --check the exit code says whether each kept its bounds."""
    codes = []
    for name in SCRIPTS:
        print(f"\n== {name.removesuffix('.py')}", flush=True)
        codes.append(
            subprocess.run([sys.executable, str(Path(__file__).parent / name), *sys.argv[1:]], check=False).returncode
        )
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
