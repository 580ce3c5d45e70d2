"""The frame of the suite where it touches nothing: selection, options, facts, reports."""

import json
import xml.etree.ElementTree as Xml
from pathlib import Path
from typing import Any

import pytest

from stackrt.checks import context, options, registry, report, show
from stackrt.checks.context import Context, FactsError
from stackrt.checks.registry import UnknownNameError, check
from stackrt.checks.result import Result, failed, passed, skipped
from stackrt.checks.runner import Row, idle

CHECKS = list(registry.load().values())
FACTS = {
    "schema": 1, "image": "pytorch", "variant": "cpu", "framework": "torch", "horovod": True, "versions": {},
    "cuda": "", "minimum_driver": "", "gpu_architectures": [], "python": "3.11",
    "base": "debian", "lock": "0", "locks": ["a.txt"],
    "budget": 0,
}  # fmt: skip


def row(name: str, result: Result, begun: float = 0.0, seconds: float = 0.0) -> Row:
    return Row(registry.CHECKS[name], result, begun, seconds, 0.0, ("last line\x1b[0m",))


def document(*rows: Row) -> dict[str, Any]:
    node: dict[str, Any] = {"host": "a", "kernel": "6", "driver": None, "devices": []}
    made = report.rows_of(rows, 0)
    return report.document(
        image=None, seen=None, nodes=[node], checks=made, started="2026-01-01T00:00:00", seconds=1.0, overhead=0.1
    )


def test_names_tags_subjects_and_needs_select() -> None:
    chosen = registry.select(CHECKS, ["lock-match"], ["network"])
    assert {one.name for one in chosen} == {"lock-match", "rendezvous", "pairwise-busbw", "transport"}
    assert {one.name for one in registry.select(CHECKS, [], ["multi-node"])} >= {"rendezvous", "transport"}
    assert registry.select(CHECKS, [], []) == CHECKS


@pytest.mark.parametrize(
    ("names", "tags", "said"),
    [
        (["lokc-match"], [], "no check of this image is named 'lokc-match'; did you mean 'lock-match'?"),
        (["xyz"], [], "--list shows every check"),
        ([], ["gpus"], "no tag of this image is named 'gpus'; did you mean"),
        ([], ["qqqqqq"], "known: "),
    ],
)
def test_an_unknown_word_is_answered_with_what_is_known(names: list[str], tags: list[str], said: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        registry.select(CHECKS, names, tags)
    assert said in str(error.value)


def test_a_check_of_another_image_is_named_as_such() -> None:
    mine = registry.belonging(CHECKS, frozenset({"tensorflow"}))
    with pytest.raises(UnknownNameError, match="it belongs to other images"):
        registry.select(mine, ["transport"], [])


def test_a_check_belongs_to_images_that_have_its_framework() -> None:
    names = {one.name for one in registry.belonging(CHECKS, frozenset({"torch"}))}
    assert "lock-match" in names
    assert "mpi-basic" not in names
    assert len(registry.belonging(CHECKS, None)) == len(CHECKS)


@pytest.mark.parametrize(
    "changes", [{"name": "lock-match"}, {"needs": ("tpu",)}, {"frameworks": ("jax",)}, {"needs": ()}]
)
def test_a_check_that_makes_no_sense_cannot_be_registered(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its name is taken, or it needs"):
        check(**{"name": "new", "proves": "", "criterion": "", **changes})


def test_a_check_says_what_it_proves_and_what_it_takes() -> None:
    for one in CHECKS:
        assert one.proves, one.name
        assert one.criterion, one.name
        assert one.function.__doc__, one.name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only"], "expected at least one argument"),
        (["--onyl", "a"], "unrecognized arguments"),
        (["--burn", "-1"], "must be from 0"),
        (["--burn", "nan"], "must be from 0"),
        (["--require", "tpu"], "--require tpu: must be gpu, multi-gpu, multi-node, or a number of GPUs"),
        (["--require", "0"], "--require 0: must be"),
        (["--json", "/absent/a.json"], "--json /absent/a.json: cannot be written: No such file or directory"),
        (["--junit", "/"], "--junit /: cannot be written: Is a directory"),
        (["--junit", "-"], "--junit -: must be a file"),
    ],
)
def test_a_bad_command_line_is_one_sentence(words: list[str], said: str) -> None:
    with pytest.raises(options.UsageError) as error:
        options.parse(words)
    assert said in str(error.value)


def test_a_report_that_can_be_written_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "old.xml").write_text("old")
    options.parse(["--json", str(tmp_path / "new.json"), "--junit", str(tmp_path / "old.xml")])
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("old.xml", "old")]


def test_names_may_be_given_with_commas_and_blanks() -> None:
    assert options.parse(["--only", "a,b", "c", "--only", "d"]).only == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("words", "needs", "gpus"),
    [((), set(), None), (("gpu",), {"gpu"}, None), (("1",), {"gpu"}, 1), (("8",), {"gpu", "multi-gpu"}, 8)],
)
def test_what_is_required(words: tuple[str, ...], needs: set[str], gpus: int | None) -> None:
    assert options.required(words) == (frozenset(needs), gpus)


def test_what_is_missing_is_told_in_words() -> None:
    here = Context(image=None, scratch=Path(), gpus=1)
    assert [here.lacks(need) for need in registry.NEEDS] == [
        "",
        "",
        "only one GPU is visible here",
        "this is a single node",
    ]
    assert Context(image=None, scratch=Path()).lacks("multi-gpu") == "no GPU is visible here"


def test_the_facts_of_an_image(tmp_path: Path) -> None:
    assert context.read_image(tmp_path) is None
    (tmp_path / "image.json").write_text(json.dumps({**FACTS, "a_later_key": 1}))
    facts = context.read_image(tmp_path)
    assert facts is not None
    assert facts.frameworks == {"torch", "horovod"}
    assert facts.locks == ("a.txt",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "image.json: cannot be read"),
        ("[]", "image.json: schema: must be 1"),
        (json.dumps({**FACTS, "schema": 2}), "image.json: schema: must be 1"),
        (json.dumps({"schema": 1, "image": "a"}), "image.json: variant: is absent"),
    ],
)
def test_facts_that_cannot_be_used_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "image.json").write_text(text)
    with pytest.raises(FactsError) as error:
        context.read_image(tmp_path)
    assert said in str(error.value)


def test_what_the_engine_has_seen() -> None:
    seen = context.read_seen('{"digest": "sha256:0", "size": 1, "labels": {}}')
    assert (seen.digest, seen.stop_seconds) == ("sha256:0", None)
    for text in ("{", "[]", "{}"):
        with pytest.raises(FactsError, match="--seen: "):
            context.read_seen(text)


def test_nodes_come_from_the_launcher() -> None:
    assert context.read_nodes({}) == (1, 0, None)
    told = {"STACK_NODES": "2", "STACK_NODE_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "29"}
    assert context.read_nodes(told) == (2, 1, ("a", 29))
    with pytest.raises(FactsError, match="one rank on each node"):
        context.read_nodes({**told, "WORLD_SIZE": "4"})


def test_the_worst_result_is_the_runs() -> None:
    assert [report.worst(found) for found in ([], ["skip"], ["pass", "skip"], ["warn", "pass"], ["fail", "warn"])] == [
        "unknown", "unknown", "pass", "warn", "fail"]  # fmt: skip


def test_overhead_is_the_time_in_which_no_check_ran() -> None:
    well = passed("")
    rows = [
        row("lock-match", well, 11, 4),
        row("pip-check", well, 12, 5),
        row("ulimits", well, 18, 1),
        row("mpi-basic", well),
    ]
    assert idle(rows, 10, 20) == pytest.approx(3)


def test_junit_holds_any_text() -> None:
    bad = failed("a\x00b <&> \ufffe", expected="c", todo="d")
    made = document(row("lock-match", passed("well")), row("pip-check", bad), row("ulimits", skipped("why")))
    suite = Xml.fromstring(report.junit(made)).find("testsuite")
    assert suite is not None
    assert [suite.get(key) for key in ("tests", "failures", "skipped")] == ["3", "1", "1"]
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "a?b <&> ?"
    assert "todo: d" in (failure.text or "")


def test_the_summary_says_what_to_do() -> None:
    bad = failed("64 MiB", expected="1 GiB", todo="give it more")
    made = document(
        row("lock-match", passed("well"), 1, 2), row("shm-size", bad, 3, 4), row("transport", skipped("no GPU"))
    )
    text = show.summary(made)
    for line in ("FAIL  shm-size", "found     64 MiB", "expected  1 GiB", "to do     give it more", "| last line",
                 "skipped: no GPU: transport", "slowest: shm-size 4.0 s, lock-match 2.0 s",
                 "no image of this stack: 1 passed, 1 failed, 1 skipped, in 1.0 s"):  # fmt: skip
        assert line in text
