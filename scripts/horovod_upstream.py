"""Run Horovod's own parallel tests, from a checkout of its repository, on two ranks of an image of ours.

A test that fails, hangs or crashes ends the ranks, and the run goes on with fresh ones; what hung or crashed is tried
again, once. The exit code is 0 if nothing failed but what scripts/upstream/known.toml names, and all that it names did.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from stackctl.engines import docker, process
from stackctl.errors import CommandFailed, InvalidInput, MissingHere, StackError
from stackctl.images.settings import from_env

HERE = Path(__file__).resolve().parent / "upstream"
RANKS = 2
GOOD = ("passed", "skipped")
SECOND = "at the second try"
START = 120
"""Seconds that the ranks have, beside one test's limit, until they have collected the tests."""


class Verdict(NamedTuple):
    """What became of a test, on the worst of its ranks: passed, skipped, failed, hung or crashed."""

    outcome: str
    why: str = ""


def main() -> int:
    """Parse, run, report; returns the exit code."""
    known = tomllib.loads((HERE / "known.toml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description="Run Horovod's own parallel tests on two ranks of an image of ours.")
    parser.add_argument("checkout", type=Path, help=f"a checkout of {known['repository']} at {known['commit'][:12]}")
    parser.add_argument("--image", required=True, choices=known["images"])
    parser.add_argument("--file", action="append", help="only this file of test/parallel; may be given again")
    parser.add_argument("--limit", type=float, default=180, help="seconds that one test may take (default 180)")
    options = parser.parse_args()
    row = known["images"][options.image]
    try:
        tests = _tests(options.checkout)
        image = _image(options.image)
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            work.chmod(0o755)  # the container is another user
            _install(work / "packages")
            verdicts: dict[str, Verdict] = {}
            for file in options.file or row["files"]:
                verdicts |= _run_file(image, tests, file, work, options.limit)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return _report(verdicts, {test["name"]: test for test in row.get("known", [])}, whole=not options.file)


def _tests(checkout: Path) -> Path:
    folder = checkout.resolve() / "test"
    if not (folder / "parallel").is_dir():
        raise InvalidInput("there is no folder test/parallel", where=str(checkout), hint="clone Horovod's repository")
    return folder


def _image(name: str) -> str:
    tag = f"{from_env(os.environ).image_prefix}{name}:cpu"
    docker.require()
    if docker.image(tag) is None:
        raise MissingHere(f"there is no image {tag}", hint=f"build it with `stackctl build {name} --variant cpu`")
    return tag


def _install(folder: Path) -> None:
    """What the tests need beside the image: pytest and two small packages, in a folder of their own."""
    argv = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", str(folder), "--no-deps"]
    process.run(
        [*argv, "--require-hashes", "--requirements", str(HERE / "packages.txt")],
        hint="install uv with `pip install uv`",
    )


def _run_file(image: str, tests: Path, file: str, work: Path, limit: float) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    again: dict[str, Verdict] = {}
    for start in itertools.count():
        print(f"{file}: starting {RANKS} ranks, {len(verdicts)} tests are done", flush=True)
        out = work / f"{file}-{start}"
        out.mkdir()
        out.chmod(0o777)
        (out / "done.txt").write_text("".join(f"{test}\n" for test in verdicts), encoding="utf-8")
        ended = _run_ranks(image, tests, file, work, out, limit)
        found, left = _read(out, ended)
        for test, verdict in found.items():
            if verdict.outcome not in GOOD:
                print(f"  {test}: {verdict.outcome}: {verdict.why}\n{_last_lines(out)}", flush=True)
        # What ends the ranks once may be the machine; twice, it is the test.
        ended_by = next((test for test, verdict in found.items() if verdict.outcome in ("hung", "crashed")), "")
        if ended_by and ended_by not in again:
            again[ended_by] = found.pop(ended_by)
            left.append(ended_by)
        elif not found and left:
            verdicts[file] = Verdict("crashed", _last_lines(out))
            break
        verdicts |= found
        if not left:
            break
    for test, first in again.items():
        if verdicts.get(test, first).outcome in GOOD:
            verdicts[test] = Verdict(verdicts[test].outcome, f"{SECOND}; the first {first.outcome}")
    return verdicts or {file: Verdict("crashed", _last_lines(out))}


def _run_ranks(image: str, tests: Path, file: str, work: Path, out: Path, limit: float) -> str:
    """Start the ranks and watch their logs; returns how they ended: done, or hung."""
    name = f"horovod-upstream-{os.getpid()}"
    # Those for TensorFlow are written for Keras 2.
    settings = {
        "STACK_PROCS": str(RANKS), "STACK_FRAMEWORK": "horovod", "STACK_DEVICE": "cpu", "STACK_OUT": "/out",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": "/packages:/plugin", "PYTHONDONTWRITEBYTECODE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2", "TF_USE_LEGACY_KERAS": "1",
    }  # fmt: skip
    mounts = {tests: "/test:ro", work / "packages": "/packages:ro", HERE: "/plugin:ro", out: "/out"}
    # Gloo crashes where a host has no address for its own name, as without a network.
    argv = ["docker", "run", "--rm", "--name", name, "--network", "none", "--hostname", "localhost", "--shm-size", "1g"]
    argv += [word for key, value in settings.items() for word in ("--env", f"{key}={value}")]
    argv += [word for here, there in mounts.items() for word in ("--volume", f"{here}:{there}")]
    argv += [image, "python", "-m", "stackrt.launch", "--", "python", "-m", "pytest", "-p", "rank_log", "-x", "-q"]
    argv += ["-p", "no:cacheprovider", f"/test/parallel/{file}"]
    with (out / "output.txt").open("wb") as output:
        ranks = subprocess.Popen(argv, stdout=output, stderr=output)
    begun = time.time()
    try:
        while ranks.poll() is None:
            time.sleep(1)
            heard = max((log.stat().st_mtime for log in out.glob("rank-*.jsonl")), default=begun + START)
            if time.time() - heard > limit:
                return "hung"
        return "done"
    finally:
        with contextlib.suppress(CommandFailed):
            process.run(["docker", "rm", "--force", name])
        ranks.wait()


def _read(out: Path, ended: str) -> tuple[dict[str, Verdict], list[str]]:
    """The tests that have a verdict, and those that are left."""
    events: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    collected: dict[str, None] = {}
    for log in sorted(out.glob("rank-*.jsonl")):
        for event in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
            events[event["test"]].append(event)
            collected[event["test"]] = None
    found: dict[str, Verdict] = {}
    for test in collected:
        verdict = _verdict(events[test], ended)
        if verdict is None:
            break
        found[test] = verdict
        if verdict.outcome not in GOOD:
            break
    return found, [test for test in collected if test not in found]


def _verdict(events: list[dict[str, Any]], ended: str) -> Verdict | None:
    kinds = collections.Counter(event["event"] for event in events)
    for kind in ("failed", "skipped"):
        if kinds[kind] and (kind == "failed" or kinds["finished"] == RANKS):
            return Verdict(kind, next(event["why"] for event in events if event["event"] == kind))
    if kinds["finished"] == RANKS:
        return Verdict("passed")
    if not kinds["started"]:
        return None
    where = "on every rank" if not kinds["finished"] else "on one rank; the other has finished"
    return Verdict("hung" if ended == "hung" else "crashed", where)


def _last_lines(out: Path) -> str:
    lines = (out / "output.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {line[:160]}" for line in lines[-8:])


def _report(verdicts: dict[str, Verdict], known: dict[str, dict[str, str]], *, whole: bool) -> int:
    """Print a table and what is unexpected; the exit code."""
    outcomes = ("passed", "skipped", "failed", "hung", "crashed")
    print(f"\n{'file':42}" + "".join(f"{outcome:>9}" for outcome in outcomes))
    for file in dict.fromkeys(test.partition("::")[0] for test in verdicts):
        counts = collections.Counter(v.outcome for test, v in verdicts.items() if test.partition("::")[0] == file)
        print(f"{file:42}" + "".join(f"{counts[outcome]:9}" for outcome in outcomes))
    wrong = [test for test, verdict in verdicts.items() if verdict.outcome not in GOOD]
    skipped = [verdict.why for verdict in verdicts.values() if verdict.outcome == "skipped"]
    reasons = collections.Counter(why for why in skipped if not why.startswith(SECOND))
    for why, count in reasons.most_common():
        print(f"skipped {count}: {why}")
    for test, verdict in verdicts.items():
        if verdict.why.startswith(SECOND):
            print(f"{verdict.outcome} {test}: {verdict.why}")
    for test in wrong:
        print(f"{verdicts[test].outcome} {test}: {known[test]['cause'] if test in known else verdicts[test].why}")
    unknown = [test for test in wrong if test not in known]
    cured = [test for test in known if whole and test not in wrong]
    for test in cured:
        print(f"{test} is named in known.toml, and did not fail")
    print(f"{len(unknown)} unexpected" if unknown or cured else "all that failed is known")
    return 1 if unknown or cured else 0


if __name__ == "__main__":
    sys.exit(main())
