from __future__ import annotations

import os
import sys
from pathlib import Path

from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy

OURS = str(Path(sys.executable).parent)
"""Where the development environment has mpirun (package mpich)."""


@fault("mpi-basic", "an image that claims MPI and has none")
def no_mpi(bench: Bench) -> Result:
    return bench.run("mpi-basic", env={"PATH": str(bench.tmp)})


@fault("mpi-basic", "ranks that do not find each other")
def alone(bench: Bench) -> Result:
    """An mpirun of another MPI: each rank is a world of its own."""
    program = bench.tmp / "mpirun"
    program.write_text('#!/bin/sh\nshift 2\n"$@" & "$@"\nwait\n')
    program.chmod(0o755)
    return bench.run("mpi-basic", env={"PATH": f"{bench.tmp}:{OURS}:{os.environ['PATH']}"})


@healthy("mpi-basic")
def two_ranks(bench: Bench) -> Result:
    return bench.run("mpi-basic", env={"PATH": f"{OURS}:{os.environ['PATH']}"})
