"""Does MPI work, where an image ships it?"""

import shutil
import subprocess
import sys

from stackrt.checks.context import Context
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed

# A file for each: the ranks' lines of output may run into each other.
RANK = """\
from pathlib import Path
from mpi4py import MPI
world = MPI.COMM_WORLD
Path(f"rank-{world.rank}").write_text(f"{world.allreduce(world.rank + 1)} of {world.size}")
"""


@check(
    "mpi-basic",
    frameworks=("mpi",),
    timeout=60.0,
    proves="ranks that mpirun starts find each other, without root",
    criterion="2 ranks: the sum of 1 and 2 is 3 on both",
)
def mpi_basic(context: Context) -> Result:
    """Sum over two ranks with mpi4py."""
    program = shutil.which("mpirun")
    todo = "add an MPI and mpi4py that fit each other to the image, or drop the claim from its facts"
    if program is None:
        return failed("there is no mpirun", expected="an image that claims MPI has it", todo=todo)
    done = subprocess.run(
        [program, "-n", "2", sys.executable, "-c", RANK],
        capture_output=True,
        text=True,
        check=False,
        cwd=context.scratch,
    )
    print(done.stdout, done.stderr, sep="\n")
    sums = [file.read_text(encoding="utf-8") for file in sorted(context.scratch.glob("rank-*"))]
    if done.returncode != 0 or sums != ["3 of 2"] * 2:
        last = (done.stderr.strip().splitlines() or ["nothing on standard error"])[-1]
        said = f"exit code {done.returncode}, sums: {', '.join(sums) or 'none'}; {last}"
        return failed(said, expected="both ranks have 3 of 2", todo=todo)
    return passed("two ranks have the right sum")
