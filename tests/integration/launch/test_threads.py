"""How many threads ranks get: affinity, a cgroup's quota, several launchers on one machine."""

import json
import os
import subprocess
import sys

import pytest

from stackrt.launch import cpus
from tests.commands import ROOT
from tests.support.launchers import Job

pytestmark = pytest.mark.needs("linux")

PRINT = (sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['GOMP_SPINCOUNT'])")
CPUS = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)


def threads_of(job: Job, world: int) -> list[int]:
    return [int(job.log(rank).split()[0]) for rank in range(world)]


@pytest.mark.parametrize(("nodes", "procs"), [(1, 1), (1, 2), (2, 1), (4, 1), (2, 2)])
def test_ranks_of_all_launchers_share_this_machine(job: Job, nodes: int, procs: int) -> None:
    started = [job.node(rank, *PRINT, nodes=nodes, procs=procs) for rank in range(nodes)]
    assert [node.wait() for node in started] == [0] * nodes, started[0].err
    assert threads_of(job, nodes * procs) == [max(1, CPUS // (nodes * procs))] * (nodes * procs)


def test_affinity_counts(job: Job) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        node = job.node(0, *PRINT, nodes=1, procs=1)
    finally:
        os.sched_setaffinity(0, before)
    assert node.wait() == 0, node.err
    assert threads_of(job, 1) == [1]


@pytest.mark.needs("docker")
@pytest.mark.parametrize(
    ("options", "expected"),
    [([], CPUS), (["--cpus", "1"], 1), (["--cpuset-cpus", "0"], 1), (["--cpus", f"{CPUS - 0.5}"], max(1, CPUS - 1))],
)
def test_a_containers_quota_counts(image: str, options: list[str], expected: int) -> None:
    code = "import json, os, torch; print(json.dumps([os.environ['OMP_NUM_THREADS'], torch.get_num_threads()]))"
    argv = ["run", "--rm", "--network", "none", *options, "--env", "STACK_DEVICE=cpu", image]
    argv = ["docker", *argv, "python", "-P", "-m", "stackrt.launch", "--", "python", "-c", code]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout
    assert json.loads(said.partition("] ")[2]) == [str(expected), expected]


PROGRAMS = ("train.gpt", "train.lm", "train.pipeline", "compress.__main__", "export.__main__")
ALONE = """
import importlib, os, sys
for name in sys.argv[1:]:
    os.environ.pop("GOMP_SPINCOUNT", None)
    importlib.import_module(f"stackrt.{name}")
    print(os.environ["GOMP_SPINCOUNT"])
from stackrt.serve import options, worker
os.environ.pop("GOMP_SPINCOUNT")
worker._set_up_threads(options.parse(["model"]))
print(os.environ["GOMP_SPINCOUNT"])
"""


@pytest.mark.needs("torch")
def test_programs_without_a_launcher_do_not_spin_either() -> None:
    """Beside other work their threads would keep the CPUs from one another: training was ten times slower."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "images")}
    argv = [sys.executable, "-P", "-c", ALONE, *PROGRAMS]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == [str(cpus.spins())] * (len(PROGRAMS) + 1), done.stderr
