"""`make demo`: two nodes learn Shakespeare, in containers where a Docker engine answers, else as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import train_env

from stackctl.engines import docker
from stackctl.errors import MissingHere, StackError
from stackctl.images.settings import from_env

STACKCTL = Path(sys.executable).parent / "stackctl"


def main() -> int:
    """Decide where to run and prepare it, then go on as `stackctl run`; returns an exit code where that fails."""
    if os.environ.get("STACK_DEMO") == "local" or not _docker():
        print("demo: as processes on this machine")
        try:
            train_env.install()
        except StackError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        return _become_stackctl("run", "gpt", "--nodes", "2", "--procs", "2")
    print("demo: in containers")
    prefix = from_env(os.environ).image_prefix
    if docker.image(f"{prefix}pytorch:cpu") is None:
        print("demo: the CPU image is built first")
    print("$ stackctl build pytorch --variant cpu", flush=True)
    built = subprocess.run([str(STACKCTL), "build", "pytorch", "--variant", "cpu"], check=False)
    if built.returncode:
        return built.returncode
    return _become_stackctl("run", "gpt", "--nodes", "2", "--procs", "2", "--on", "compose")


def _docker() -> bool:
    try:
        docker.require("buildx")
        docker.require("compose")
    except MissingHere as error:
        print(f"demo: {error.message}")
        return False
    return True


def _become_stackctl(*words: str) -> NoReturn:
    """Go on as stackctl: Ctrl-C then reaches it, and nothing above it kills it while it cleans up."""
    print("$ stackctl", *words, flush=True)
    os.execv(STACKCTL, [str(STACKCTL), *words])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
