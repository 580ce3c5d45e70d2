"""Runs in an image: kill -9 of a random rank at a random moment, again and again; each next attempt goes on.

python drill.py MODULE KILLS SEED

Our launcher and its ranks are forks of this process, which has imported the trainer: importing TensorFlow takes longer
than training. A rank is the real program from its first line on, in a session of its own as the launcher starts it.
"""

import importlib
import itertools
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stackrt.launch import __main__ as launcher
from stackrt.launch import rank as ranks
from stackrt.signals import NOTICES, STOPS

MODULE, KILLS, SEED = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
RANKS = 2
WORDS = ["--steps", "60", "--checkpoint-every", "4", "--log-every", "5", "--eval-every", "20", "--keep", "3"]
ROOT = Path("/tmp/drill")
PATIENCE = 600.0
"""Seconds for one attempt; on a machine with other work, tracing alone takes a minute."""


class Fork:
    """In place of `subprocess.Popen`, for the launcher: starts a rank by a fork."""

    returncode: int | None = None
    numbers = itertools.count()

    def __init__(
        self, command: Sequence[str], *, stdout: int, env: dict[str, str], preexec_fn: Callable[[], None], **_: Any
    ) -> None:
        self.number = next(self.numbers)
        self.pid = os.fork()
        if self.pid:
            return
        end(lambda: self.rank(command, stdout, env, preexec_fn))

    def rank(self, command: Sequence[str], stdout: int, env: dict[str, str], preexec_fn: Callable[[], None]) -> None:
        os.setsid()
        # As exec leaves it: neither the launcher's handlers nor its sockets.
        signal.set_wakeup_fd(-1)
        for number in (*STOPS, *NOTICES, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(stdout, 1)
        os.dup2(stdout, 2)
        for descriptor in {int(path.name) for path in Path("/proc/self/fd").iterdir()} - KEPT:
            os.closerange(descriptor, descriptor + 1)
        preexec_fn()
        os.environ.clear()
        os.environ.update(env)
        Path(env["STACK_OUT"], f"pid-{self.number}").write_text(str(os.getpid()))
        module = command[command.index("-m") + 1]
        sys.argv = [module, *command[command.index(module) + 1 :]]
        runpy.run_module(module, run_name="__main__")


def end(program: Callable[[], object]) -> None:
    """Run a program to its end, and end this process as it would."""
    code = 1
    try:
        program()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Attempt:
    """One start of the launcher with all ranks."""

    def __init__(self, out: Path) -> None:
        self.out, self.log = out, out.with_suffix(".log")
        self.code: int | None = None
        out.mkdir(exist_ok=True)
        for path in out.glob("pid-*"):
            path.unlink()
        self.pid = os.fork()
        if self.pid:
            return
        os.setsid()
        to = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(to, 1)
        os.dup2(to, 2)
        os.environ.update(STACK_PROCS=str(RANKS), STACK_OUT=str(out))
        # Not for the launcher's own helper.
        vars(ranks)["subprocess"] = SimpleNamespace(Popen=Fork, DEVNULL=subprocess.DEVNULL)
        sys.argv = ["launch", "--", sys.executable, "-P", "-m", MODULE, *WORDS]
        end(lambda: sys.exit(launcher.main()))

    def newest(self) -> str:
        """The name of the newest checkpoint, or nothing."""
        return max((path.name for path in (self.out / "checkpoints").glob("step-*.npz")), default="")

    def runs(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, or for its end."""
        deadline = time.monotonic() + PATIENCE
        while self.runs() and not condition():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.002)

    def kill(self, rank: int) -> bool:
        """Kill a rank, if it runs."""
        try:
            os.kill(int((self.out / f"pid-{rank}").read_text()), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return False
        return True

    def said(self) -> str:
        return self.log.read_text()[-4000:]


def finished(out: Path) -> dict[str, object]:
    """What a run that came to its end has to have in common with every other."""
    done = json.loads((out / "result.json").read_text())
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    same = {name: done[name] for name in ("params_sha256", "accuracy", "validation_accuracy", "last_train_loss")}
    return {**same, "rows": [(row["step"], row.get("loss"), row.get("val_accuracy")) for row in rows]}


def drill() -> str:
    """Kill until it is enough, and let each run come to its end; what was done, in words."""
    whole = Attempt(ROOT / "whole")
    whole.until(lambda: False)
    assert whole.code == 0, whole.said()
    dice, landed, runs = random.Random(SEED), Counter[str](), 0
    out = ROOT / "broken"
    while landed.total() < KILLS:
        runs += 1
        shutil.rmtree(out, ignore_errors=True)
        code = None
        while code != 0:
            attempt = Attempt(out)
            before = attempt.newest()
            if killing := landed.total() < KILLS:
                # A third at any time in the start; the others soon after a checkpoint, or while it is written.
                attempt.until((out / f"pid-{RANKS - 1}").exists)
                if dice.random() < 1 / 3:
                    time.sleep(dice.uniform(0, 1))
                else:
                    attempt.until(lambda before=before, attempt=attempt: attempt.newest() != before)  # type: ignore[misc]
                    time.sleep(dice.uniform(0, 0.2))
                killing = attempt.kill(dice.randrange(RANKS))
            found = attempt.newest()
            attempt.until(lambda: False)
            code = attempt.code
            if code:
                assert killing, attempt.said()
                assert "SIGKILL" in attempt.log.read_text(), attempt.said()  # ahead of what the others say, maybe
                landed["after a checkpoint" if found != before else "before one"] += 1
                print(f"kill {landed.total()}, {time.monotonic() - BEGAN:.0f} s", file=sys.stderr, flush=True)
        wanted, got = finished(ROOT / "whole"), finished(out)
        assert got == wanted, f"{got}\n{wanted}\n{attempt.said()}"
        assert not list((out / "checkpoints").glob(".*")), "a half-written checkpoint stayed"
    return f"{landed.total()} kills in {runs} runs: {dict(landed)}"


if __name__ == "__main__":
    BEGAN = time.monotonic()
    importlib.import_module(MODULE)
    del sys.modules[MODULE]  # each rank runs it anew
    KEPT = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    ROOT.mkdir()
    print(f"{drill()}, {time.monotonic() - BEGAN:.0f} s")
