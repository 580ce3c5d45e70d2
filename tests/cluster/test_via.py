"""Runs through JobSets and TrainJobs, with the real managers: the same pods, results and commands as through a Job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.harness import kueue, operators
from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter
from tests.cluster.test_access import ROLE
from tests.cluster.test_access import Submitter as Account
from tests.cluster.test_training import SMALL, TWO_RANKS, parameters
from tests.commands import ROOT, Stackctl
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker")

SLEEP = ["--", "sleep", "600"]
MANAGED = ("jobset", "trainjob")


@pytest.fixture(scope="module")
def managers(own_cluster: OwnCluster) -> Iterator[OwnCluster]:
    """The cluster with JobSet and Trainer, for the tests of this module."""
    with operators.running(own_cluster):
        yield own_cluster


@pytest.fixture(scope="module")
def brief(managers: OwnCluster, shared_submitter: Submitter) -> str:
    """A run through a TrainJob that fails, and whose Job stays for a minute only."""
    words = ["--via", "trainjob", "--retries", "0", "--keep", "60", "--", "sh", "-c", "exit 9"]
    shared_submitter.submit("brief", *words)
    return "brief"


def listed(submitter: Submitter) -> dict[str, str]:
    done = submitter.stackctl("list", "--json")
    assert done.returncode == 0, done.stderr
    return {row["name"]: row["state"] for row in json.loads(done.stdout)}


def test_a_cluster_without_the_manager_says_how_to_get_it(own_cluster: OwnCluster, shared_submitter: Submitter) -> None:
    """The first of this module: the others install them."""
    for via, group in (("jobset", "jobset.x-k8s.io"), ("trainjob", "trainer.kubeflow.org")):
        done = shared_submitter.stackctl("submit", "--image", shared_submitter.image, "--via", via, *SLEEP)
        assert done.returncode == 3
        assert f"serves no {group}" in done.stderr
        assert "have it installed: https://" in done.stderr


@pytest.mark.needs("torch")
def test_one_job_by_all_three_gives_the_same_parameters(
    managers: OwnCluster, shared_submitter: Submitter, brief: str
) -> None:
    """The smallest job that trains."""
    names = {via: f"by-{via}" for via in ("job", *MANAGED)}
    for via, name in names.items():
        shared_submitter.submit(name, "gpt", *TWO_RANKS, "--via", via, "--", "--steps", "2", *SMALL)
    for name in names.values():
        done = shared_submitter.stackctl("wait", name, timeout=400)
        assert done.returncode == 0, done.stderr
    found = {name: parameters(shared_submitter.folder(name) / "result.json") for name in names.values()}
    assert len(set(found.values())) == 1, found
    assert listed(shared_submitter) == {brief: "failed", **dict.fromkeys(found, "succeeded")}
    kinds = shared_submitter.kubectl("get", "jobsets,trainjobs", "--output=name").split()
    assert {row for row in kinds if "/by-" in row} == {
        "jobset.jobset.x-k8s.io/by-jobset",
        "jobset.jobset.x-k8s.io/by-trainjob",
        "trainjob.trainer.kubeflow.org/by-trainjob",
    }


@pytest.mark.parametrize("via", MANAGED)
def test_everything_after_submission_works_alike(
    via: str, managers: OwnCluster, shared_submitter: Submitter, tmp_path: Path
) -> None:
    """A run that fails once and is entered, followed, explained, listed, repeated and cancelled."""
    me, name = shared_submitter, f"alike-{via}"
    script = 'echo hello from $RANK; [ "$STACK_ATTEMPT" != 1 ] || exit 9; sleep 600'
    words = ["--nodes", "2", "--via", via, "--retries", "1", "--exclude-node", "node-1", "--", "sh", "-c", script]
    me.submit(name, *words)
    until(lambda: me.status(name).attempt == 2, 120, lambda: me.explain(name))
    now = me.wait_for(name, "running", 120)
    assert (now.attempts, [node.host for node in now.nodes]) == (2, ["node-0", "node-0"])
    assert listed(me)[name] == "running"
    assert me.told("explain", name)["cause"] == "running"
    assert "exited with code 9" in me.stackctl("logs", name, "--attempt", "1").stdout
    assert "hello from 1" in me.stackctl("logs", name).stdout
    entered = me.stackctl("exec", name, "--rank", "1", "--", "printenv", "STACK_RUN")
    assert (entered.returncode, entered.stdout) == (0, f"{name}\n"), entered.stderr
    again = me.stackctl("submit", "--image", me.image, "--name", name, *words)
    assert (again.returncode, "is there already" in again.stderr) == (0, True), again.stderr
    other = me.stackctl("submit", "--image", me.image, "--name", name, "--no-preflight", *SLEEP)
    assert (other.returncode, "has a run of this name, with another --via" in other.stderr) == (4, True), other.stderr
    me.cancel(name)
    kinds = "jobsets,trainjobs,trainingruntimes"
    until(lambda: name not in me.kubectl("get", kinds, "--output=name"), 60)
    assert listed(me)[name] == "stopped"


@pytest.mark.parametrize("via", MANAGED)
def test_what_a_dry_run_prints_can_be_applied_and_cancelled(
    via: str, managers: OwnCluster, shared_submitter: Submitter, tmp_path: Path
) -> None:
    me, name = shared_submitter, f"dry-{via}"
    asked = ["submit", "--image", me.image, "--name", name, "--via", via]
    for dry in ("--dry-run=client", "--dry-run=server"):
        done = me.stackctl(*asked, dry, *SLEEP)
        assert done.returncode == 0, done.stderr
    manifests = me.stackctl(*asked, "--dry-run", *SLEEP).stdout
    until(lambda: applied(me, manifests), 30)
    me.wait_for(name, "running", 120)
    me.cancel(name)
    until(lambda: name not in me.kubectl("get", "jobsets,trainjobs,trainingruntimes", "--output=name"), 60)


def applied(me: Submitter, manifests: str) -> bool:
    """Whether kubectl could apply them; not where Trainer does not know yet of the runtime that it has just got."""
    done = me.cluster.kubectl("apply", "--server-side", "--filename=-", given=manifests, check=False)
    assert done.returncode == 0 or "specified trainingRuntime must be created before" in done.stderr, done.stderr
    return done.returncode == 0


def test_both_wait_in_a_queue(managers: OwnCluster, shared_submitter: Submitter) -> None:
    me = shared_submitter
    with kueue.running(managers, "jobset.x-k8s.io/jobset", "trainer.kubeflow.org/trainjob"):
        kueue.queue(managers, me.namespace, "team", {"nvidia.com/gpu": 1})
        one = ["--queue", "team", "--gpus", "1", "--device", "cpu"]
        me.submit("first", *one, "--via", "jobset", *SLEEP)
        me.wait_for("first", "running", 120)
        me.submit("second", *one, "--via", "trainjob", *SLEEP)
        wanted = "needs 1 nvidia.com/gpu more in flavor default of queue team; first holds 1"
        until(lambda: wanted in me.explain("second").sentence, 60, lambda: me.explain("second"))
        assert listed(me)["second"] == "queued"
        me.cancel("first")
        me.wait_for("second", "running", 120)
        me.cancel("second")


def test_a_train_job_whose_job_has_gone_stays_as_it_ended(shared_submitter: Submitter, brief: str) -> None:
    """Nothing starts it anew. By now the minute is over."""
    me = shared_submitter
    me.wait_for(brief, "failed", 120)
    until(lambda: "job.batch/brief-node-0" not in me.objects(brief), 180, lambda: me.objects(brief))
    told = me.told("status", brief)
    assert (told["state"], told["nodes"]) == ("failed", [])
    assert listed(me)[brief] == "failed"
    made = me.kubectl("get", "jobs,pods", "--output=name").split()
    assert [row for row in made if "/brief" in row] == []
    me.cancel(brief)


MANAGERS_ROLE, _ = yaml.safe_load_all((ROOT / "k8s" / "base" / "managers.yaml").read_text())
RULES = MANAGERS_ROLE["rules"]
LACKING = [
    (
        "jobset" if lacks["resources"] == ["jobsets"] else "trainjob",
        [{**rule, "verbs": [word for word in rule["verbs"] if (rule, word) != (lacks, verb)]} for rule in RULES],
    )
    for lacks in RULES
    for verb in lacks["verbs"]
]
"""Ways to the cluster, and the role without a verb that one takes."""


def test_each_verb_of_the_role_is_needed(
    managers: OwnCluster, shared_submitter: Submitter, stackctl: Stackctl, tmp_path: Path
) -> None:
    """With the role both kinds are submitted, watched and cancelled; without one of its verbs something fails."""
    me, kinds = shared_submitter, "jobsets,trainjobs,trainingruntimes"
    account = Account(managers, me.namespace, tmp_path)
    env = {"KUBECONFIG": str(account.path)}
    submit = ["submit", "--no-preflight", "--image", me.image, "--name", "little"]

    def goes_well(rules: list[dict[str, Any]], via: str) -> bool:
        account.allow([*ROLE["rules"], *rules])
        for command, *words in ([*submit, "--via", via, *SLEEP], ["status", "little"], ["cancel", "little"]):
            done = stackctl(command, "-n", me.namespace, *words, env=env)
            if done.returncode or "you may not" in done.stderr:
                return False
        left = me.cluster.get(kinds, "--namespace", me.namespace)["items"]
        return all(row["metadata"].get("deletionTimestamp") for row in left if row["metadata"]["name"] == "little")

    account.allow([*ROLE["rules"], *(rule for rule in RULES if rule["resources"] != ["trainjobs"])])
    dry = stackctl(
        "submit", "-n", me.namespace, "--image", me.image, "--via", "trainjob", "--dry-run=server", *SLEEP, env=env
    )
    assert (dry.returncode, "trainjobs" in dry.stderr) == (3, True), "the cluster is shown the run itself as well"
    for via, rules in [*((via, RULES) for via in MANAGED), *LACKING]:
        assert goes_well(rules, via) == (rules == RULES), (via, rules)
        me.kubectl("delete", kinds, "--field-selector=metadata.name=little", "--timeout=60s")
        until(lambda: me.objects("little") == [], 60)
