"""Several ranks for one check, started as a job's are: by the launcher, with the variables of docs/launcher.md.

    answers = ranks.run(context, "stackrt.checks.pytorch:ddp_rank", 2, arguments={"seed": 7})

Each rank calls that function with these arguments; its answer, a dictionary of JSON values, comes back by rank.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackrt.checks.context import Context
from stackrt.contract import PREFIX
from stackrt.frameworks import FRAMEWORKS


class RanksError(Exception):
    """The ranks did not all answer; `str()` is the launcher's sentence, with the last lines of the first failure."""


@dataclass(frozen=True)
class Across:
    """A job over several nodes."""

    nodes: int
    node: int
    rendezvous: str
    """host:port of its node 0."""
    token: str

    @property
    def contract(self) -> dict[str, str]:
        """The launcher's variables for it."""
        return {
            "STACK_NODES": str(self.nodes),
            "STACK_NODE_RANK": str(self.node),
            "STACK_RENDEZVOUS": self.rendezvous,
            "STACK_TOKEN": self.token,
            "STACK_TIMEOUT": "30",
        }


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
    across: Across | None = None,
) -> list[dict[str, Any]]:
    """Call a function in each of `procs` ranks of this node and return their answers by local rank.

    Args:
        function: `module:name` of a function that takes the arguments and returns a dictionary of JSON values.
        framework: What the launcher's variables are for, of FRAMEWORKS.
        device: cpu, or cuda for a GPU a rank.
        env: More variables for the ranks.
        timeout: Seconds; keep the check's own longer.
        across: Make them part of a job over several nodes, each of which calls this.

    Raises:
        RanksError: A rank failed, or they were not done in time.
    """
    out = Path(tempfile.mkdtemp(prefix="ranks-", dir=context.scratch))
    contract = {
        "STACK_RUN": "check",
        "STACK_PROCS": str(procs),
        "STACK_DEVICE": device,
        "STACK_FRAMEWORK": framework,
        "STACK_OUT": str(out),
        **(across.contract if across else {}),
    }
    outer = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
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
    local_rank = FRAMEWORKS[os.environ["STACK_FRAMEWORK"]].local_rank(os.environ)
    file = Path(os.environ["STACK_OUT"]) / f"answer-{local_rank}.json"
    file.write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
