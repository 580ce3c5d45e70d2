from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from stackctl.engines.kube import Cluster
from stackctl.errors import InvalidInput, MissingHere
from stackctl.jobs import job as jobs
from stackctl.runs import known, leftovers, listing, observe, places, services, store, summary, watch
from stackctl.runs.backends.base import Where
from stackctl.runs.cluster import ClusterRun
from stackctl.runs.handle import Lines, NoSuchRun, RunHandle
from stackctl.runs.observe import View
from stackctl.runs.states import State
from stackctl.runs.store import Record

KUBECONFIG = """\
current-context: here
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: here, context: {cluster: c, namespace: team}}]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run store, and a kubeconfig of a cluster that has no run of its."""
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))

    def absent(_cluster: object, name: str, namespace: str) -> watch.Run:
        raise NoSuchRun(f"the namespace {namespace} has no run named {name}")

    monkeypatch.setattr(watch, "find", absent)
    monkeypatch.setattr(leftovers, "find", lambda _cluster, _name, _namespace: [])
    monkeypatch.setattr(services, "find", lambda _cluster, _name, _namespace: None)
    monkeypatch.setattr(listing, "states", lambda _context, _namespace: {})
    return tmp_path / "runs"


def stored(home: Path, name: str, backend: str = "kubernetes", state: State = "running", namespace: str = "") -> None:
    context = "here" if namespace else ""
    store.create(home / name, jobs.make(name=name, workload="gpt"), resume=False)
    record = Record(
        name=name, backend=backend, attempt=1, started="then", state=state, namespace=namespace, context=context
    )
    store.write_json(home / name / "run.json", record)


def find(name: str, where: Where = Where()) -> RunHandle:  # noqa: B008 - frozen
    return known.find(name, where, print)


def test_the_list_has_the_stores_runs_as_the_cluster_sees_them_and_others(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(home, "local", "local", "failed")
    stored(home, "mine", namespace="team")
    stored(home, "gone", namespace="team")
    stored(home, "elsewhere", state="stopped", namespace="other")
    there = dict.fromkeys(["local", "mine", "elsewhere", "theirs"], ("pending", "now"))
    monkeypatch.setattr(listing, "states", lambda _context, _namespace: there)
    runs = sorted((run.name, run.namespace, run.state, run.started) for run in known.runs(Where(), print))
    assert runs == [
        ("elsewhere", "other", "stopped", "then"),
        ("elsewhere", "team", "pending", "now"),
        ("gone", "team", "gone", "then"),
        ("local", "", "failed", "then"),
        ("local", "team", "pending", "now"),
        ("mine", "team", "pending", "then"),
        ("theirs", "team", "pending", "now"),
    ]


def test_the_list_of_all_namespaces(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(home, "mine", namespace="team")
    stored(home, "elsewhere", namespace="other")
    stored(home, "gone", namespace="third")
    there = {
        "team": {"mine": ("pending", "now")},
        "other": {"elsewhere": ("succeeded", "now")},
        "far": {"mine": ("queued", "now")},
    }
    monkeypatch.setattr(listing, "everywhere", lambda _context: there)
    runs = sorted((run.name, run.namespace, run.state) for run in known.runs(Where(everywhere=True), print))
    assert runs == [
        ("elsewhere", "other", "succeeded"),
        ("gone", "third", "gone"),
        ("mine", "far", "queued"),
        ("mine", "team", "pending"),
    ]


def test_a_run_that_its_cluster_has_no_more_tells_what_its_folder_does(home: Path) -> None:
    stored(home, "a", namespace="team")
    run = find("a")
    assert run.status().text == "a: not on the cluster any more, and nobody saw how it ended"
    assert run.cancel() == "a is not on the cluster any more"
    assert run.wait().state == "gone"
    record = store.read_record(home / "a")
    assert record
    assert record.state == "running", "nobody knows better: another look may find its claim"
    with pytest.raises(InvalidInput, match="no such logs were kept"):
        list(run.logs(Lines()))


def test_a_run_of_this_machine_is_found_where_the_cluster_has_none_of_its_name(home: Path) -> None:
    stored(home, "a", "local", "succeeded")
    for where in (Where(), Where(namespace="team")):
        assert find("a", where).wait().state == "succeeded"
    with pytest.raises(NoSuchRun, match="the namespace team has no run named b"):
        find("b")
    with pytest.raises(InvalidInput, match="no such context"):
        find("a", Where(context="absent"))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [(Lines(rank=2), "must be from 0 to 1"), (Lines(node=-1), "must be from 0"), (Lines(rank=1, node=0), "on node 1")],
)
def test_lines_that_no_rank_prints(chosen: Lines, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        chosen.nodes(jobs.make(name="a", workload="gpt", nodes=2))


def placed(home: Path, name: str, state: State = "running", **place: str) -> Record:
    record = Record(
        name=name, backend="kubernetes", attempt=1, started="then", state=state, **{"context": "here", **place}  # type: ignore[arg-type]
    )  # fmt: skip
    store.submitted(places.folder(home, record), jobs.make(name=name, workload="gpt"), record)
    return record


def test_of_several_runs_of_a_name_one_is_chosen_by_its_place(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(home, "a", namespace="team")
    placed(home, "a", "failed", namespace="other")
    with pytest.raises(InvalidInput, match="is the name of 2 runs") as error:
        find("a")
    assert str(error.value).splitlines() == [
        "a: is the name of 2 runs:",
        "  namespace team, context here: running, started then",
        "  namespace other, context here: failed, started then",
        "  choose one with --namespace (-n) or --context",
    ]
    assert "not on the cluster any more" in find("a", Where(namespace="team")).status().text
    assert find("a", Where(namespace="other")).wait().state == "failed"
    with pytest.raises(NoSuchRun, match="the namespace third has no run named a"):
        find("a", Where(namespace="third"))
    runs = [(run.namespace, run.state) for run in known.runs(Where(), print)]
    assert sorted(runs) == [("other", "failed"), ("team", "gone")]


def test_contexts_of_one_name_are_told_apart_by_their_servers(home: Path) -> None:
    placed(home, "a", "failed", namespace="team", server="https://127.0.0.1:1")
    placed(home, "a", "running", namespace="team", server="https://127.0.0.1:2")
    assert find("a").wait().state == "failed"
    assert [(run.state, run.seen) for run in known.runs(Where(), print)] == [("failed", ""), ("running", "then")]


def test_a_run_of_a_cluster_that_its_context_does_not_mean_any_more(home: Path) -> None:
    placed(home, "a", "running", namespace="team", server="https://127.0.0.1:2")
    with pytest.raises(NoSuchRun, match="has no run named a on https://127") as error:
        find("a")
    assert "a was submitted to https://127.0.0.1:2" in error.value.hint


def test_a_run_whose_context_is_not_there_tells_when_it_was_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed(home, "a", namespace="team", context="lost")
    with pytest.raises(InvalidInput) as error:
        find("a")
    assert str(error.value).startswith("a: was submitted to the context lost, and the kubeconfig has no such context")
    assert error.value.hint == "running when last seen, at then; --context says what it is called now"
    monkeypatch.setenv("KUBECONFIG", str(home / "absent"))
    with pytest.raises(InvalidInput, match="KUBECONFIG names no file"):
        find("a")


def test_a_run_that_is_found_again_is_not_that_of_another_job(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found on the cluster has the name and the place of the run that the store knows, and is another Job."""
    record = placed(home, "a", "failed", namespace="team", uid="1")
    job = jobs.make(name="a", workload="gpt")
    said = SimpleNamespace(context="here", host="")
    now = View(name="a", namespace="team", state="running", attempt=1, attempts=1, created="")
    monkeypatch.setattr(watch, "look", lambda _run: (None, []))
    monkeypatch.setattr(observe, "view", lambda _job, _pods: now)
    for uid, state in (("2", "failed"), ("1", "failed")):
        ClusterRun(watch.Run(cast(Cluster, said), "a", "team", job, uid), print).status()
        assert store.read_record(places.folder(home, record)) == record, f"{state} is how it ended"
    placed(home, "a", namespace="team", uid="3")
    said.context = "the same, by another name"
    ClusterRun(watch.Run(cast(Cluster, said), "a", "team", job, "3"), print).status()
    seen = store.read_record(places.folder(home, record))
    assert seen
    assert (seen.uid, seen.state, bool(seen.seen)) == ("3", "running", True)


def test_states_that_nobody_has_asked_for_say_when_they_were_seen(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    placed(home, "away", namespace="other", seen="2026-11-22T06:00:00+00:00")
    placed(home, "done", "succeeded", namespace="other", seen="2026-11-22T06:00:00+00:00")
    runs = known.runs(Where(), print)
    assert {run.name: run.seen for run in runs} == {"away": "2026-11-22T06:00:00+00:00", "done": ""}
    assert "away  running (seen 2026-11-22T06:00)  namespace other" in summary.listed(runs).text
    assert capsys.readouterr().out == ""


def test_why_no_cluster_was_asked_is_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(home, "a", namespace="team")
    absent = str(tmp_path / "absent")
    monkeypatch.setenv("KUBECONFIG", absent)
    assert [run.seen for run in known.runs(Where(), print)] == ["then"]
    assert capsys.readouterr().out == f"note: no cluster is asked for its runs: KUBECONFIG names no file: {absent}\n"


def test_what_another_version_ran_is_named(home: Path) -> None:
    stored(home, "a", "slurm", "succeeded")
    assert [run.state for run in known.runs(Where(), print)] == ["succeeded"]
    with pytest.raises(InvalidInput, match="no backend is named 'slurm'"):
        find("a")


@pytest.mark.parametrize("text", ["", '{"name":', '{"name": "a", "backend": "local", "attempt": 1, "state": "paused"}'])
def test_a_record_that_cannot_be_read_is_told_of(text: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        stored(home, name, "local", "failed")
    (home / "a" / "run.json").write_text(text)
    assert [run.name for run in known.runs(Where(), print)] == ["b"]
    assert f"{home / 'a' / 'run.json'}: is damaged, or of another version" in capsys.readouterr().out
    with pytest.raises(InvalidInput, match="is damaged, or of another version"):
        find("a")


def test_a_run_without_its_record_or_its_job_is_told_of(home: Path) -> None:
    stored(home, "a", "local", "succeeded")
    job = (home / "a" / "job.json").rename(home / "job.json")
    with pytest.raises(InvalidInput, match="it is not known what this run is") as error:
        find("a").status()
    assert error.value.where == str(home / "a" / "job.json")
    job.rename(home / "a" / "job.json")
    (home / "a" / "run.json").unlink()
    with pytest.raises(InvalidInput, match="it is not known how this run fares"):
        find("a")


def test_a_run_is_listed_by_the_name_of_its_folder(home: Path) -> None:
    stored(home, "a", "local")
    (home / "a").rename(home / "b")
    stored(home, "a", "local", "succeeded")
    assert {(run.name, run.state) for run in known.runs(Where(), print)} == {("a", "succeeded"), ("b", "unknown")}
    assert "run --resume --name b" in find("b").status().text


def test_where_no_cluster_can_be_asked_it_is_told_that_this_machine_has_no_such_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(home / "absent"))
    told: list[str] = []
    with pytest.raises(MissingHere):
        known.find("b", Where(), told.append)
    assert told == ["note: this machine has no run named b"]


def test_a_broken_kubeconfig_does_not_hide_the_runs_of_this_machine(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(home, "a", "local", "succeeded")
    (tmp_path / "kubeconfig").write_text("{{{")
    assert [run.name for run in known.runs(Where(), print)] == ["a"]
    assert "is no kubeconfig" in capsys.readouterr().out
    with pytest.raises(InvalidInput, match="is no kubeconfig"):
        known.runs(Where(context="here"), print)


def test_a_run_of_this_machine_that_has_ended_needs_no_stop(home: Path) -> None:
    stored(home, "a", "local", "succeeded")
    assert find("a").cancel() == "a has ended already"


def test_ranks_that_print_nothing_have_logs(home: Path) -> None:
    stored(home, "a", "local", "succeeded")
    with pytest.raises(InvalidInput, match="no such logs were kept"):
        list(find("a").logs(Lines()))
    (home / "a" / "logs" / "attempt-1").mkdir(parents=True)
    (home / "a" / "logs" / "attempt-1" / "rank-0.log").touch()
    assert list(find("a").logs(Lines())) == []
