from __future__ import annotations

import json
import resource

from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy_in

ALONE = ("init-signals",)


@fault("init-signals", "the suite itself as process 1: nobody reaps", needs=("docker",))
def no_init(bench: Bench) -> Result:
    return bench.report("pytorch", "--entrypoint", "/usr/bin/env", only=ALONE)["init-signals"]


@fault("init-signals", "a process 1 that reaps and is deaf to SIGTERM", needs=("docker",))
def deaf(bench: Bench) -> Result:
    # `sh` waits for its child, and so reaps; without a trap the kernel drops a SIGTERM to process 1.
    plant = "python -P -m stackrt.checks --json - --only init-signals; exit"
    return bench.report("pytorch", "--entrypoint", "/usr/bin/env", plant=plant, only=ALONE)["init-signals"]


@fault("init-signals", "a container that takes 9 s to stop", needs=("docker",))
def slow_stop(bench: Bench) -> Result:
    seen = json.dumps({"digest": "sha256:0", "size": 1, "labels": {}, "stop_seconds": 9.0})
    return bench.report("pytorch", only=ALONE, words=("--seen", seen))["init-signals"]


@fault("ulimits", "512 open files", needs=("docker",))
def few_files(bench: Bench) -> Result:
    return bench.sick()["ulimits"]


def small_stack() -> None:
    resource.setrlimit(resource.RLIMIT_STACK, (2**20, resource.getrlimit(resource.RLIMIT_STACK)[1]))


@fault("ulimits", "a stack of 1 MiB")
def little_stack(bench: Bench) -> Result:
    return bench.run("ulimits", plant=small_stack)


def little_locked_memory() -> None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (2**16, 2**16))


@fault("ulimits", "64 KiB of locked memory on a machine with GPUs")
def locked_memory(bench: Bench) -> Result:
    return bench.run("ulimits", bench.context(gpus=1), plant=little_locked_memory)


healthy_in("pytorch", "init-signals", "ulimits")
