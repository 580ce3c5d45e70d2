"""A backend more: all that it takes is a module like this one and a row of the registry."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stackctl.cli.main import cli
from stackctl.runs import store
from stackctl.runs.backends import BACKENDS, Row
from stackctl.runs.backends.base import Foreground, Request
from stackctl.runs.backends.foreground import claimed, recorded
from stackctl.runs.handle import RunHandle, Tell, Told
from stackctl.runs.store import Record


class Echo(Foreground):
    """Runs nothing: prints the plan."""

    where = "echoes"

    def plan(self, asked: Request, tell: Tell) -> Told:
        text = f"echo {shlex.join(asked.job.command)}"
        return Told(text, {"argv": text.split()})

    def start(self, asked: Request, tell: Tell) -> RunHandle:
        with claimed(asked.folder, asked.job, resume=asked.resume) as (attempt, _):
            begun = Record(name=asked.job.name, backend="echo", attempt=attempt, started=store.now())
            with recorded(begun, asked.folder, tell) as ended:
                tell(self.plan(asked, tell).text)
                record = ended([0])
        return self.stored(asked.folder, record, tell)


def test_a_backend_takes_a_row_and_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "echo", Row(Echo))
    monkeypatch.delitem(sys.modules, "stackctl.cli.run", raising=False)  # it knows the rows of when it was imported
    monkeypatch.setenv("STACK_RUNS", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))

    def said(*words: str) -> Result:
        result = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    assert said("run", "--on", "echo", "--dry-run", "--", "tool", "a b").stdout == "echo tool 'a b'\n"
    run = said("run", "--on", "echo", "--name", "a", "--", "tool")
    assert (run.stdout, run.stderr) == ("a: succeeded (1 node x 1 rank, echoes)\n", "echo tool\n")
    assert said("run", "--resume", "--name", "a").stderr == "echo tool\n"
    assert said("status", "a").stdout == said("explain", "a").stdout == run.stdout
    assert said("wait", "a").stderr == run.stdout
    (row,) = json.loads(said("list", "--json").stdout)
    assert (row["name"], row["state"], row["backend"]) == ("a", "succeeded", "echo")
