"""`make demo`: two nodes learn Shakespeare, in containers where a Docker engine answers, else as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import train_env

from stackctl.engines import docker
from stackctl.errors import MissingHere, StackError
from stackctl.images.settings import from_env

STACKCTL = Path(sys.executable).parent / "stackctl"


def main() -> int:
    """Decide where to run, prepare it, run; returns the exit code."""
    if os.environ.get("STACK_DEMO") == "local" or not _docker():
        print("demo: as processes on this machine")
        try:
            train_env.install()
        except StackError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        return _stackctl("run", "gpt", "--nodes", "2", "--procs", "2")
    print("demo: in containers")
    prefix = from_env(os.environ).image_prefix
    if docker.image(f"{prefix}pytorch:cpu") is None:
        print("demo: the CPU image is built first")
        train_env.announce_build()
    return _stackctl("build", "pytorch", "--variant", "cpu") or _stackctl(
        "run", "gpt", "--nodes", "2", "--procs", "2", "--on", "compose"
    )


def _docker() -> bool:
    try:
        docker.require("buildx")
        docker.require("compose")
    except MissingHere as error:
        print(f"demo: {error.message}")
        return False
    return True


def _stackctl(*words: str) -> int:
    print("$ stackctl", *words, flush=True)
    return subprocess.run([str(STACKCTL), *words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
