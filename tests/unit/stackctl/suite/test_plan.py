import pytest

from stackctl.errors import InvalidInput
from stackctl.suite import plan
from stackctl.suite.plan import Selection

EVERYTHING = Selection(only=("lock-match", "pip-check"), tags=("cuda",), require=("gpu",), burn=30)


def test_a_container_has_no_right_that_it_does_not_need() -> None:
    argv = plan.container("mine:1", Selection(), name="a", gpus=False)
    assert argv[:6] == ("docker", "run", "--rm", "--name", "a", "--shm-size")
    assert " ".join(argv).count("--cap-drop ALL --security-opt no-new-privileges:true") == 1
    assert "--gpus" not in argv
    assert argv[argv.index("mine:1") + 1 :][:4] == plan.SUITE


def test_a_container_sees_gpus_where_there_are_some() -> None:
    argv = plan.container("mine:1", Selection(), name="a", gpus=True)
    assert argv[argv.index("--gpus") + 1] == "all"


def test_the_selection_reaches_the_suite() -> None:
    words = " ".join(EVERYTHING.words)
    assert words == "--only lock-match pip-check --tag cuda --require gpu --burn 30"
    assert words in " ".join(plan.container("mine:1", EVERYTHING, name="a", gpus=False))
    assert words in " ".join(plan.job("mine:1", EVERYTHING, name="a", nodes=2).command)


def test_several_nodes_are_a_job_with_one_rank_each() -> None:
    job = plan.job("mine:1", Selection(), name="a", nodes=3)
    assert (job.nodes, job.procs, job.image) == (3, 1, "mine:1")
    assert f"/out/{plan.REPORT}" in job.command


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (Selection(only=("lock",)), "no check of this image is named 'lock'"),
        (Selection(tags=("locks",)), "did you mean 'lock'?"),
        (Selection(require=("0",)), "--require 0: must be"),
        (Selection(only=("lock-match",), burn=60), "--burn 60: the check burn is not in this run"),
    ],
)
def test_a_selection_without_meaning_is_refused(chosen: Selection, said: str) -> None:
    with pytest.raises(InvalidInput, match=said.replace("?", r"\?")):
        plan.check(chosen, frozenset({"torch"}))


def test_of_an_unknown_image_all_checks_may_be_named() -> None:
    plan.check(Selection(only=("lock-match",), tags=("cuda", "image")), None)


def test_on_a_cluster_the_report_goes_into_the_log_and_one_rank_has_all_gpus() -> None:
    job = plan.job("mine:1", Selection(), name="a", nodes=2, timeout=900, gpus=8)
    assert (job.procs, job.gpus, job.device, job.timeout) == (1, 8, "cpu", 900)
    assert job.command[-2:] == ("--packed", "--report-only")


def test_gpus_that_a_pod_was_given_must_be_seen() -> None:
    assert plan.with_gpus(Selection(), 8).require == ("8",)
    assert plan.with_gpus(Selection(), 0).require == ()
    assert plan.with_gpus(Selection(require=("multi-node", "4")), 8).require == ("multi-node", "4")
