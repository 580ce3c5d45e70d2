"""`make test`: the tests in lanes that run side by side, then those whose bounds of time need a quiet machine.

    python -m tests.lanes                 all lanes
    python -m tests.lanes checks runs     some of them
    python -m tests.lanes --check         a lane above its budget is a failure

Each lane is one pytest (`pytest --lane=NAME`), so what its tests share is made once a lane. Images are built once for
all.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from stackrt.launch import cpus
from tests.commands import PREFIX, ROOT, STACKCTL, environment, hear_signals
from tests.machine import REQUIRED, lacks_cuda_images, lacks_docker

QUIET = "quiet"
SLOWEST = 15
POLL_SECONDS = 0.5
NEWS_SECONDS = 60
COLD_SECONDS = 60
"""Where building took longer, it used the cores that the lanes' budgets count on."""


@dataclass(frozen=True)
class Lane:
    """A row of lanes.toml."""

    name: str
    what: str
    minutes: float
    tests: tuple[str, ...] = ()
    built: bool = False
    alone: bool = False


@functools.cache
def load() -> dict[str, Lane]:
    """The lanes by name, in the file's order."""
    rows = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return {name: Lane(name, **{**row, "tests": tuple(row.get("tests", ()))}) for name, row in rows.items()}


def lane_of(path: str) -> str:
    """The lane of a test file, given its path from the root: that of the longest path that holds it."""
    found = [
        (len(test), lane.name)
        for lane in load().values()
        for test in lane.tests
        if path == test or path.startswith(f"{test}/")
    ]
    return max(found)[1]


@dataclass(frozen=True)
class Test:
    """A test's seconds, fixtures included, and how it ended."""

    name: str
    seconds: float
    outcome: str


class Running:
    """A lane at work."""

    def __init__(self, lane: Lane, folder: Path) -> None:
        self.lane = lane
        self.begun = time.monotonic()
        self.seconds = 0.0
        self.log, self._report = folder / f"{lane.name}.log", folder / f"{lane.name}.xml"
        argv = [sys.executable, "-m", "pytest", f"--lane={lane.name}", "--junitxml", str(self._report)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=hear_signals,
            )

    def done(self) -> bool:
        """Whether it has ended; takes note of when."""
        if self.process.poll() is None:
            return False
        self.seconds = self.seconds or time.monotonic() - self.begun
        return True

    @property
    def failed(self) -> bool:
        """Whether a test failed, or the lane itself; one without a test that can run here has not (pytest's 5)."""
        return self.process.returncode not in (0, 5)

    @property
    def over(self) -> bool:
        """Whether it took longer than its budget."""
        return self.seconds > 60 * self.lane.minutes

    def tests(self) -> list[Test]:
        """What its report tells; empty if it wrote none."""
        try:
            cases = ElementTree.parse(self._report).iter("testcase")
        except (OSError, ElementTree.ParseError):
            return []
        return [
            Test(
                f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}",
                float(case.get("time", 0)),
                next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed"),
            )
            for case in cases
        ]

    def last_test(self) -> str:
        """The file that it is at, and how far it is."""
        lines = self.log.read_text(errors="replace").rstrip().splitlines()
        return " ".join(lines[-1].split())[:100] if lines else ""


class Preparing:
    """Builds once what several lanes use: images, and the cluster's programs where STACK_REQUIRE asks for a cluster.

    What fails here fails again, and is told, in the tests that need it.
    """

    def __init__(self, lanes: Sequence[Lane], folder: Path) -> None:
        self.begun = time.monotonic()
        self.seconds = 0.0
        commands = []
        shared = any(lane.built for lane in lanes)  # else nothing would wait for what is built here
        if shared and not lacks_docker():
            variants = ["--variant", "cpu"] if lacks_cuda_images() else []
            commands.append([STACKCTL, "build", *variants])
        if "cluster" in REQUIRED and any(test.startswith("tests/cluster") for lane in lanes for test in lane.tests):
            commands.append([sys.executable, "-m", "tests.cluster.harness", "build"])
        with (folder / "built.log").open("wb") as log:
            self.processes = [
                subprocess.Popen(
                    argv, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
                for argv in commands
            ]

    def done(self) -> bool:
        """Whether all is built, or can't be; takes note of when."""
        if any(process.poll() is None for process in self.processes):
            return False
        self.seconds = self.seconds or time.monotonic() - self.begun
        return True


def remove_images() -> None:
    """Remove the tags; their layers stay in the cache."""
    if lacks_docker():
        return
    argv = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={PREFIX}*"]
    tags = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
    if tags:
        subprocess.run(["docker", "image", "rm", "--force", *tags], capture_output=True, check=False)


def startable(waiting: Sequence[Lane], room: int, *, built: bool, seconds: float) -> list[Lane]:
    """The lanes to start now, the first ones first.

    Args:
        waiting: Those that have not begun.
        room: For how many there is room.
        built: Whether what several lanes use is built.
        seconds: Since that was begun. At first it may soon be over, and the lanes that wait for it keep their places:
            else the longest would begin after the shortest.
    """
    first = waiting if built or seconds > COLD_SECONDS else waiting[:room]
    return [lane for lane in first if built or not lane.built][:room]


def run(lanes: Sequence[Lane], folder: Path, preparing: Preparing, jobs: int) -> list[Running]:
    """Run lanes until the last has ended; says when one has, and now and then where the others are.

    Args:
        jobs: How many run at once.
    """
    waiting, running = list(lanes), list[Running]()
    told: set[str] = set()
    news = time.monotonic() + NEWS_SECONDS
    try:
        while len(told) < len(lanes):
            room, seconds = jobs - sum(one.lane.name not in told for one in running), time.monotonic() - preparing.begun
            ready = startable(waiting, room, built=preparing.done(), seconds=seconds)
            running += [Running(lane, folder) for lane in ready]
            waiting = [lane for lane in waiting if lane not in ready]
            time.sleep(POLL_SECONDS)
            for one in running:
                if one.done() and one.lane.name not in told:
                    told.add(one.lane.name)
                    how = "FAILED" if one.failed else "passed"
                    print(f"  {one.lane.name:10} {how} in {clock(one.seconds)}", flush=True)
            if time.monotonic() > news:
                news = time.monotonic() + NEWS_SECONDS
                for one in running:
                    if one.lane.name not in told:
                        print(f"  {one.lane.name:10} {one.last_test()}", flush=True)
    except BaseException:
        for process in preparing.processes:
            process.terminate()
        for one in running:
            one.process.send_signal(signal.SIGINT)  # pytest then puts away what its fixtures made
        for process in (*preparing.processes, *(one.process for one in running)):
            process.wait()
        raise
    return running


def cores() -> int:
    """CPUs that may be used here."""
    return cpus.usable().at_once


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def show(lanes: Sequence[Running], seconds: float) -> None:
    """Print what failed, what was skipped and why, the slowest tests, and each lane beside its budget."""
    for one in lanes:
        text = one.log.read_text(errors="replace")
        if one.failed:
            print(f"\n== {one.lane.name}\n{text[-60_000:]}")
        else:
            skipped = [line for line in text.splitlines() if line.startswith("SKIPPED")]
            print("\n".join(f"  {one.lane.name:10} {line}" for line in skipped), end="\n" if skipped else "")
    tests = [(one.lane.name, test) for one in lanes for test in one.tests()]
    print(f"\nslowest {min(SLOWEST, len(tests))} of {len(tests)} tests")
    for lane, test in sorted(tests, key=lambda row: -row[1].seconds)[:SLOWEST]:
        print(f"  {test.seconds:6.1f} s  {lane:10} {test.name[:110]}")
    print("\nlane         tests      took      budget")
    for one in lanes:
        note = "  over its budget" if one.over else ""
        took, budget = clock(one.seconds), f"{one.lane.minutes:g} min"
        print(f"  {one.lane.name:10} {len(one.tests()):5}  {took:>12} {budget:>9}{note}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    share = (used.ru_utime + used.ru_stime) / seconds / cores()
    # Containers and pods are not our children: their engine starts them.
    print(f"  in all     {len(tests):5}  {clock(seconds):>12}   {share:.0%} of {cores()} cores, containers apart")


def main() -> int:
    """Run the lanes; the exit code says whether all passed."""
    lanes = load()
    parser = argparse.ArgumentParser(description="Run the tests in lanes, side by side.")
    parser.add_argument("lanes", nargs="*", metavar="LANE", help=f"{', '.join(lanes)} (default: all)")
    parser.add_argument(
        "--jobs", type=int, default=2 * cores(), metavar="N", help="lanes at once (default: twice the cores)"
    )
    parser.add_argument("--check", action="store_true", help="a lane above its budget is a failure")
    arguments = parser.parse_args()
    if unknown := set(arguments.lanes) - lanes.keys():
        parser.error(f"no lane {', '.join(sorted(unknown))}; there are {', '.join(lanes)}")
    chosen = [lane for lane in lanes.values() if not arguments.lanes or lane.name in arguments.lanes]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()
    print(f"lanes: {', '.join(lane.name for lane in chosen)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="stackctl-lanes-") as folder:
        os.environ["STACK_TEST_LANES"] = folder
        try:
            preparing = Preparing(chosen, Path(folder))
            done = run([lane for lane in chosen if not lane.alone], Path(folder), preparing, arguments.jobs)
            for lane in chosen:
                done += run([lane], Path(folder), preparing, 1) if lane.alone else []
        finally:
            remove_images()
        seconds = time.monotonic() - begun
        show(done, seconds)
        outcomes = [test.outcome for one in done for test in one.tests()]
    failed = sum(outcome in ("failure", "error") for outcome in outcomes)
    broken = [one.lane.name for one in done if one.failed]
    print(f"images and programs were built in {clock(preparing.seconds)}")
    cold = preparing.seconds > COLD_SECONDS
    if cold and arguments.check:
        print("so the budgets, which are of a machine where they are there, are not held against this run")
    over = [one.lane.name for one in done if one.over and arguments.check and not cold]
    for names, what in ((broken, "failed"), (over, "took longer than its budget (tests/lanes.toml)")):
        if names:
            print(f"lane {', '.join(names)} {what}")
    print(f"\n{outcomes.count('passed')} passed, {failed} failed, {outcomes.count('skipped')} skipped")
    return 1 if broken or over else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: what the lanes had started is put away")
