"""The Python interface: its names, what it takes, and how answers show themselves."""

from __future__ import annotations

import inspect
import logging
import sys
import threading
from pathlib import Path

import pytest

import stackctl
from stackctl import ClusterOptions, InvalidInput, Job, Outcome, Status, run
from stackctl.api.answers import status_of
from stackctl.api.job import checked, made
from stackctl.jobs import job as jobs
from stackctl.runs.handle import Told
from stackctl.runs.observe import NodeView, View
from tests.commands import ROOT

PAGE = ROOT / "docs" / "reference" / "python.md"


def test_the_public_names_and_signatures_are_the_listed_ones() -> None:
    """The page is made from them; a change of it is one of the API, and takes a line in CHANGELOG.md."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import reference
    finally:
        sys.path.pop(0)
    changed = "the API has changed: run `make render`, and tell it in CHANGELOG.md"
    assert reference.python() == PAGE.read_text(encoding="utf-8"), changed
    for name in stackctl.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(stackctl, name)), name


def test_a_job_is_what_the_command_line_would_make_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_RUNS", str(tmp_path))
    told: list[str] = []
    asked = Job(workload="gpt", arguments=["--steps", "5"], nodes=2, procs=2, seed=3, name="a")
    wanted = jobs.make(name="a", workload="gpt", arguments=("--steps", "5"), nodes=2, procs=2, seed=3)
    assert made(asked, told.append, containers=False, for_cluster=False) == wanted
    own = made(Job(command=["python", "7.py"], image="my/image"), told.append, containers=True, for_cluster=True)
    assert own.name.startswith("run-7-")
    assert (own.command, own.device, own.framework) == (("python", "7.py"), "cpu", "torch")
    assert told == ["note: my/image is not of the catalog: its ranks get torch's variables (--framework)"]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Job(), "Job: nothing to run: give a command, or a workload's name"),
        (Job(command=["x"], nodes=0), "nodes=0: must be from 1 to 65,536"),
        (Job(command=["x"], name="A"), "name=A: a run's name has lower-case letters"),
        (Job(command=["x"], nodes="2"), "nodes: Expected `int`, got `str`"),  # type: ignore[arg-type]
        (Job(command="python mine.py"), "command: Expected `array`, got `str`"),
        (Job(command=["x"], workload="gpt"), "command: a workload has `arguments`"),
        (Job(command=["x"], arguments=["y"]), "arguments: are a workload's"),
        (Job(command=["x"], env={"RANK": "1"}), "env=RANK: is the launcher's to set"),
    ],
)
def test_what_cannot_be_is_said_by_its_argument(job: Job, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        run(job, folder=tmp_path / "run")
    assert str(caught.value).startswith(said)
    assert not (tmp_path / "run").exists()


def test_a_list_will_do_for_a_tuple_and_a_text_for_a_path() -> None:
    options = ClusterOptions(volumes=["a", "b:/data"], code=".")  # type: ignore[arg-type]
    assert checked(options) == ClusterOptions(volumes=("a", "b:/data"), code=Path())
    with pytest.raises(InvalidInput, match="retries: Expected `int`, got `str`"):
        checked(ClusterOptions(retries="3"))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="code: Expected `Path`, got `int`"):
        checked(ClusterOptions(code=3))  # type: ignore[arg-type]


def test_a_thread_that_hears_no_ctrl_c_runs_no_job() -> None:
    caught: list[str] = []

    def call() -> None:
        try:
            run(Job(command=["true"]))
        except InvalidInput as error:
            caught.append(error.message)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert caught == ["a job is run in the main thread, as only that hears Ctrl-C"]


def test_answers_show_themselves() -> None:
    nodes = tuple(NodeView(node, f"a-{node}", "running", f"host-{node}") for node in range(2))
    view = View(name="a", namespace="n", state="running", attempt=2, attempts=4, created="", nodes=nodes)
    text = "a: running, attempt 2 of 4 (2 nodes x 1 rank, namespace n)\nNODE  STATE\n0     running\n1     running\n<&>"
    status = status_of("a", Told(text, view))
    assert str(status) == text
    assert status._repr_html_() == (
        "<div><b>a</b>: running, attempt 2<table><tr><th>node</th><th>state</th><th>host</th><th>pod</th></tr>"
        "<tr><td>0</td><td>running</td><td>host-0</td><td>a-0</td></tr>"
        "<tr><td>1</td><td>running</td><td>host-1</td><td>a-1</td></tr></table><pre>&lt;&amp;&gt;</pre></div>"
    )
    assert status._repr_markdown_().splitlines() == [
        "**a**: running, attempt 2", "", "| node | state | host | pod |", "|---|---|---|---|",
        "| 0 | running | host-0 | a-0 |", "| 1 | running | host-1 | a-1 |", "", "```text", "<&>", "```",
    ]  # fmt: skip
    with pytest.raises(stackctl.JobFailed, match="rank 1 failed") as caught:
        Outcome("failed", "rank 1 failed", "look").check()
    assert caught.value.hint == "look"
    Outcome("succeeded", "").check()
    assert isinstance(status, Status)


def test_unknown_names_are_as_of_any_module() -> None:
    assert set(stackctl.__all__) <= set(dir(stackctl))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        stackctl.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_what_is_told_goes_to_the_logger(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.INFO, "stackctl"), pytest.raises(InvalidInput):
        run(Job(command=["x"], image="my/image", nodes=0), folder=tmp_path / "run")
    assert [row.name for row in caplog.records] == ["stackctl"]
