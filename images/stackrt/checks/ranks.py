"""Several ranks for one check, started as a job's are: by the launcher, with the variables of docs/launcher.md.

    answers = ranks.run(context, "stackrt.checks.pytorch:ddp_rank", 2, arguments={"seed": 7})

Each rank calls that function with these arguments; its answer, a dictionary of JSON values, comes back by rank.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackrt.checks.context import Context


class RanksError(Exception):
    """The ranks did not all answer; `str()` is the launcher's sentence, with the last lines of the first failure."""


def run(
    context: Context,
    function: str,
    procs: int,
    *,
    framework: str = "torch",
    device: str = "cpu",
    arguments: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> list[dict[str, Any]]:
    """Call a function in each of `procs` ranks of this node and return their answers by rank.

    Args:
        function: `module:name` of a function that takes the arguments and returns a dictionary of JSON values.
        framework: What the launcher's variables are for: torch, tensorflow or horovod.
        device: cpu, or cuda for a GPU a rank.
        env: More variables for the ranks.
        timeout: Seconds; keep the check's own longer.

    Raises:
        RanksError: A rank failed, or they were not done in time.
    """
    out = context.scratch / "ranks"
    out.mkdir(exist_ok=True)
    contract = {
        "STACK_RUN": "check",
        "STACK_PROCS": str(procs),
        "STACK_DEVICE": device,
        "STACK_FRAMEWORK": framework,
        "STACK_OUT": str(out),
    }
    outer = {name: value for name, value in os.environ.items() if not name.startswith("STACK_")}
    command = [*context.launcher, "--", sys.executable, "-P", "-m", "stackrt.checks.ranks", function]
    launcher = subprocess.Popen(
        [*command, json.dumps(arguments or {})],
        env={**outer, **(env or {}), **contract},
        stdin=subprocess.DEVNULL,
        cwd=context.scratch,
    )
    try:
        code = launcher.wait(timeout)
    except subprocess.TimeoutExpired:
        launcher.terminate()
        raise RanksError(f"{procs} ranks were not done within {timeout:g} s") from None
    if code != 0:
        raise RanksError(_why(out, code))
    return [json.loads((out / f"answer-{rank}.json").read_text(encoding="utf-8")) for rank in range(procs)]


def _why(out: Path, code: int) -> str:
    try:
        failure = json.loads((out / "failure.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"the launcher ended with exit code {code}"
    last = [line for line in failure["last_lines"] if line.strip()][-1:]
    return " | ".join([failure["sentence"], *last])


def main() -> None:
    """In a rank: call the function and write its answer."""
    module, _, name = sys.argv[1].partition(":")
    answer = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    file = Path(os.environ["STACK_OUT"]) / f"answer-{rank(os.environ)}.json"
    file.write_text(json.dumps(answer), encoding="utf-8")


def rank(env: Mapping[str, str]) -> int:
    """This process's rank, where the launcher put it for the framework."""
    if env["STACK_FRAMEWORK"] == "tensorflow":
        return int(json.loads(env["TF_CONFIG"])["task"]["index"])
    return int(env["RANK" if env["STACK_FRAMEWORK"] == "torch" else "HOROVOD_RANK"])


if __name__ == "__main__":
    main()
