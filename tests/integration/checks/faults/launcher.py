from __future__ import annotations

import sys

from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy, healthy_in

NAIVE = """\
import os, subprocess, sys
command = sys.argv[sys.argv.index("--") + 1 :]
ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
for number, rank in enumerate(ranks):
    print(f"[{number}]", rank.stdout.readline(), end="", flush=True)
"""
"""A launcher that starts ranks, and then does what its last line says."""


def little_patience() -> None:
    from stackrt.checks import launcher

    launcher.END_SECONDS = 1.0


def another(bench: Bench, last: str) -> Result:
    script = bench.tmp / "launcher.py"
    script.write_text(NAIVE + last)
    context = bench.context(launcher=(sys.executable, str(script)))
    return bench.run("rank-kill", context, plant=little_patience)


@fault("rank-kill", "a launcher that waits for all ranks, and so hangs")
def hangs(bench: Bench) -> Result:
    return another(bench, "[rank.wait() for rank in ranks]")


@fault("rank-kill", "a launcher that ends and leaves the other ranks behind")
def leaves_ranks(bench: Bench) -> Result:
    return another(bench, "ranks[1].wait(); sys.exit(1)")


@fault("rank-kill", "a launcher that ends all ranks and does not say why")
def says_nothing(bench: Bench) -> Result:
    return another(bench, "ranks[1].wait(); [(rank.kill(), rank.wait()) for rank in ranks]; sys.exit(1)")


@healthy("rank-kill")
def our_launcher(bench: Bench) -> Result:
    return bench.run("rank-kill")


healthy_in("pytorch", "rank-kill")
