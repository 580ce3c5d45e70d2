"""Starts trainer processes fast: imports the trainer once, then forks one child a process wanted.

A child is the real program from `main` on; only the seconds of importing torch are shared. The parent never computes
with torch, so it has no thread pool that a fork would break. Requests and replies are JSON, a line each.
"""

import importlib
import json
import os
import resource
import sys
import time
from typing import Any

from stackrt.train import gpt

IMPORTED_LATER = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.compat.proto.summary_pb2",
    "tensorboard.summary.writer.record_writer",
    "torch._dynamo",
    "transformers.models.gpt2.modeling_gpt2",
)
"""What trainers import when they run."""


def start(argv: list[str], env: dict[str, str], log: str) -> int:
    """Fork a trainer whose output goes to `log`; returns its process id.

    `TEST_PROGRAM` names another than gpt, with what it would import when it runs, a space between; `TEST_MEMORY` is how
    many bytes more than the parent's the child may have.
    """
    program, *_ = map(importlib.import_module, env.get("TEST_PROGRAM", gpt.__name__).split())
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(env)
        os.chdir(env.get("TEST_FOLDER") or ".")
        if "TEST_MEMORY" in env:
            pages = int(open("/proc/self/statm", encoding="ascii").read().split()[0])  # noqa: PTH123, SIM115
            limit = pages * resource.getpagesize() + int(env["TEST_MEMORY"])
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        code = program.main(argv)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(pid: int, timeout: float) -> int | None:
    """The exit code of a child (negative: the signal that ended it), or None if it still runs after `timeout`."""
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def main() -> None:
    """Serve until standard input ends."""
    for name in IMPORTED_LATER:
        importlib.import_module(name)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        reply = start(**request["start"]) if "start" in request else wait(**request["wait"])
        print(json.dumps(reply), flush=True)
    os._exit(0)  # with all that the trainers import, the interpreter's own end takes seconds


if __name__ == "__main__":
    main()
