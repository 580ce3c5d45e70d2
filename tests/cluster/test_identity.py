"""Which run, which cluster, and as whom: runs that share a name, secrets, credentials that change, and leftovers."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cluster.conftest import new_namespace
from tests.cluster.harness.cluster import Cluster
from tests.cluster.submitting import Submitter
from tests.commands import ROOT, STACKCTL, environment
from tests.support.processes import background
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster")

Command = Callable[..., "subprocess.CompletedProcess[str]"]

SLEEP = ["--grace", "0", "--", "sleep", "600"]
LAST_WORDS = """\
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("the last words")))
print("up", flush=True)
time.sleep(600)
"""
MANIFESTS = ["secret", "service", "networkpolicy"]
ACCOUNT = Path("/run/secrets/kubernetes.io/serviceaccount")


@pytest.fixture(scope="module")
def other(shared_submitter: Submitter) -> Iterator[Submitter]:
    """The same person, with the same run store, in another namespace."""
    with new_namespace(shared_submitter.cluster) as name:
        yield replace(shared_submitter, namespace=name)


@pytest.fixture
def person(shared_submitter: Submitter) -> Command:
    """The same person's commands, without a namespace unless they name one."""
    return command(KUBECONFIG=str(shared_submitter.kubeconfig), STACK_RUNS=str(shared_submitter.store))


def command(**env: str) -> Command:
    """A function that runs a stackctl command to its end in an environment; it may be given more of that."""

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        given = environment(**{**env, **more})
        return subprocess.run([STACKCTL, *words], env=given, capture_output=True, text=True, timeout=180, check=False)

    return run


def connection(cluster: Cluster) -> dict[str, Any]:
    """The kubeconfig of one cluster and one user."""
    return dict(json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout))


def account(submitter: Submitter, name: str) -> str:
    """A service account that may do in the namespace what a submitter may; returns a token of it."""
    submitter.kubectl("create", "serviceaccount", name)
    words = ["--clusterrole=admin", f"--serviceaccount={submitter.namespace}:{name}"]
    submitter.kubectl("create", "rolebinding", name, *words)
    return submitter.kubectl("create", "token", name).strip()


def test_runs_of_one_name_in_two_namespaces_are_told_apart(
    shared_submitter: Submitter, other: Submitter, person: Command
) -> None:
    shared_submitter.submit("dup", "--", "echo", "of the first")
    other.submit("dup", "--retries", "0", "--", "sh", "-c", "echo of the second; exit 3")
    assert shared_submitter.stackctl("wait", "dup").returncode == 0
    assert other.stackctl("wait", "dup").returncode == 1
    for submitter, said in ((shared_submitter, "[0] of the first"), (other, "[0] of the second")):
        followed = submitter.stackctl("logs", "-f", "dup")
        assert said in followed.stdout.splitlines(), followed.stderr
    which = person("status", "dup")
    assert (which.returncode, which.stdout) == (2, "")
    assert which.stderr.startswith("error: dup: is the name of 2 runs:\n"), which.stderr
    for submitter, state in ((shared_submitter, "succeeded"), (other, "failed")):
        assert f"namespace {submitter.namespace}, context " in which.stderr
        assert f": {state}, started" in which.stderr
    assert "choose one with --namespace (-n) or --context" in which.stderr
    for submitter in (shared_submitter, other):
        submitter.cancel("dup")
    rows = [row for row in json.loads(person("list", "--json").stdout) if row["name"] == "dup"]
    assert {(row["namespace"], row["state"]) for row in rows} == {
        (shared_submitter.namespace, "succeeded"),
        (other.namespace, "failed"),
    }
    for submitter, said in ((shared_submitter, "[0] of the first"), (other, "[0] of the second")):
        kept = submitter.stackctl("logs", "dup")
        assert kept.stdout.splitlines() == [said], kept.stderr


def test_a_run_of_another_namespace_is_listed_as_it_was_last_seen(
    shared_submitter: Submitter, other: Submitter, person: Command
) -> None:
    other.submit("away", *SLEEP)
    other.wait_for("away", "running", 120)
    other.kubectl("delete", "job", "away", "--wait=true")
    listed = {row["name"]: row for row in json.loads(shared_submitter.stackctl("list", "--json").stdout)}
    assert listed["away"]["seen"], "that it is still there nobody knows here"
    text = shared_submitter.stackctl("list").stdout
    assert f"(seen {listed['away']['seen'][:16]})" in text
    there = {row["name"]: row for row in json.loads(other.stackctl("list", "--json").stdout)}
    assert (there["away"]["state"], "seen" in there["away"]) == ("gone", False)


def test_a_value_of_ones_own_is_in_the_runs_secret_and_nowhere_else(
    shared_submitter: Submitter, person: Command
) -> None:
    value, place = "5f3a-not-to-be-seen", ["-n", shared_submitter.namespace]
    words = [*place, "--image", shared_submitter.image, "--name", "keyed", "--secret-env", "API_KEY"]
    job = ["--", "python", "-c", "import os; print(os.environ['API_KEY'][::-1])"]
    unset = person("submit", *words, *job)
    assert (unset.returncode, "--secret-env API_KEY: is not set in your environment" in unset.stderr) == (2, True)
    done = person("submit", *words, "--wait", *job, API_KEY=value)
    assert done.returncode == 0, done.stderr
    logs = person("logs", *place, "keyed")
    assert logs.stdout.splitlines() == [f"[0] {value[::-1]}"]
    secret = json.loads(shared_submitter.kubectl("get", "secret", "keyed", "-o", "json"))
    assert base64.b64decode(secret["data"]["env.API_KEY"]).decode() == value
    everything = [
        shared_submitter.kubectl("get", "jobs,pods,services,networkpolicies,events", "-o", "json"),
        json.dumps(secret["metadata"]),
        *(done.stdout + done.stderr for done in (done, unset)),
        *(person(name, *place, "keyed", "--json").stdout for name in ("status", "explain")),
        *(path.read_text() for path in shared_submitter.store.rglob("*.json")),
    ]
    assert not [text for text in everything if value in text]
    shared_submitter.cancel("keyed")
    printed = person("submit", *words, "--dry-run", *job, API_KEY=value)
    assert "the Secret below holds the value of API_KEY" in printed.stderr
    holders = [part for part in printed.stdout.split("---\n") if value in part]
    assert [part.splitlines()[1] for part in holders] == ["kind: Secret"]


def test_what_was_applied_from_a_dry_run_can_be_cancelled(shared_submitter: Submitter) -> None:
    words = ["submit", "--image", shared_submitter.image, "--name", "applied", *SLEEP]
    printed = shared_submitter.stackctl(*words[:1], "--dry-run", *words[1:]).stdout
    for with_job in (True, False):
        shared_submitter.cluster.kubectl("apply", "--filename=-", given=printed)
        if not with_job:
            shared_submitter.kubectl("delete", "job", "applied", "--wait=true")
            blocked = shared_submitter.stackctl(*words)
            assert blocked.returncode == 4
            assert "has a Secret of this name, of a run that kubectl applied" in blocked.stderr
            assert f"stackctl cancel applied -n {shared_submitter.namespace}" in blocked.stderr
            status = shared_submitter.stackctl("status", "applied")
            assert "has its Secret, Service and NetworkPolicy, and no Job" in status.stdout, status.stderr
        shared_submitter.cancel("applied")
    shared_submitter.submit("applied", *SLEEP)
    shared_submitter.cancel("applied")


def test_what_belongs_to_no_run_is_not_cancelled_with_one(shared_submitter: Submitter) -> None:
    shared_submitter.kubectl("create", "secret", "generic", "theirs", "--from-literal=a=b")
    absent = shared_submitter.stackctl("cancel", "theirs")
    assert (absent.returncode, "has no run named theirs" in absent.stderr) == (2, True), absent.stderr
    assert shared_submitter.kubectl("get", "secret", "theirs", "-o", "name") == "secret/theirs\n"


def test_each_right_to_remove_is_needed(shared_submitter: Submitter, tmp_path: Path) -> None:
    """A role without the right to remove one kind of what `kubectl apply` made: its cancel says what stays."""
    import yaml

    rules = next(yaml.safe_load_all((ROOT / "k8s" / "base" / "rbac.yaml").read_text()))["rules"]
    space, path = shared_submitter.namespace, tmp_path / "kubeconfig"
    shared_submitter.kubectl("create", "serviceaccount", "least")
    about = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"namespace": space, "name": "least"}}
    shared_submitter.cluster.apply(
        {**about, "kind": "RoleBinding", "subjects": [{"kind": "ServiceAccount", "name": "least", "namespace": space}],
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "least"}}
    )  # fmt: skip
    given = connection(shared_submitter.cluster)
    given["users"][0]["user"] = {"token": shared_submitter.kubectl("create", "token", "least").strip()}
    path.write_text(json.dumps(given))
    for kind in MANIFESTS:
        plural = f"{kind}s".replace("ys", "ies")
        lesser = [
            {**rule, "verbs": [verb for verb in rule["verbs"] if verb != "delete" or rule["resources"] != [plural]]}
            for rule in rules
        ]
        assert lesser != rules, "the role has what is taken from it here"
        shared_submitter.cluster.apply({**about, "kind": "Role", "rules": lesser})
        words = ["submit", "-n", space, "--image", "any", "--name", kind, "--dry-run", "--", "true"]
        printed = shared_submitter.stackctl(words[0], *words[3:]).stdout
        shared_submitter.cluster.kubectl("apply", "--filename=-", given=printed)
        done = command(KUBECONFIG=str(path), STACK_RUNS=str(tmp_path))("cancel", "-n", space, kind)
        assert done.returncode == 0, done.stderr
        assert f"kubectl delete {kind} {kind} -n {space}" in done.stderr
        left = shared_submitter.kubectl("get", ",".join(MANIFESTS), "-o", "name", "-l", f"stackctl.io/run={kind}")
        assert [name.split("/")[0].split(".")[0] for name in left.split()] == [kind]


def test_who_follows_goes_on_when_their_token_is_revoked(shared_submitter: Submitter, tmp_path: Path) -> None:
    """With a file of a token, as a pod has it and as a kubeconfig may name it, and with a program that gives one."""
    old, token = account(shared_submitter, "first"), tmp_path / "token"
    new = account(shared_submitter, "second")
    token.write_text(old)
    given = connection(shared_submitter.cluster)
    about = {"apiVersion": "client.authentication.k8s.io/v1"}
    answer = json.dumps({**about, "kind": "ExecCredential", "status": {"token": "%s"}})
    words = ["-c", f'printf {shlex.quote(answer)} "$(cat {token})"']
    plugin = {**about, "command": "sh", "args": words, "interactiveMode": "Never"}
    users = {"file": {"tokenFile": str(token)}, "program": {"exec": plugin}}
    shared_submitter.submit("followed", "--", "python", "-c", LAST_WORDS)
    with ExitStack() as stack:
        followers = []
        for name, user in users.items():
            path = tmp_path / f"kubeconfig-{name}"
            path.write_text(json.dumps({**given, "users": [{**given["users"][0], "user": user}]}))
            person = replace(shared_submitter, kubeconfig=path, store=tmp_path)
            followers.append(stack.enter_context(person.background("logs", "-f", "followed")))
        followers.append(stack.enter_context(in_pod(shared_submitter, token, tmp_path, "logs", "-f", "followed")))
        for follower in followers:
            for line in follower.stdout or ():
                if line.endswith("up\n"):
                    break
        token.write_text(new)
        shared_submitter.kubectl("delete", "serviceaccount", "first")
        until(lambda: "Unauthorized" in as_bearer(shared_submitter, old), 90)
        shared_submitter.cancel("followed")
        for follower in followers:
            left, said = follower.communicate(timeout=60)
            assert "followed was removed meanwhile" in said, said
            assert "the last words" in left


def as_bearer(submitter: Submitter, token: str) -> str:
    """What the API server says to somebody with this token only."""
    server = ["--kubeconfig=/dev/null", f"--server={connection(submitter.cluster)['clusters'][0]['cluster']['server']}"]
    words = ["--insecure-skip-tls-verify", f"--token={token}", "get", "pods", "-n", submitter.namespace]
    return submitter.cluster.kubectl(*server, *words, check=False).stderr


def in_pod(submitter: Submitter, token: Path, folder: Path, *words: str) -> Any:
    """A command of stackctl that finds what one in a pod of the namespace would: a service account, no kubeconfig.

    Args:
        token: The file of its token; the link to it is followed at each look, as in a pod.
    """
    server = connection(submitter.cluster)["clusters"][0]["cluster"]
    mounted, address = folder / "serviceaccount", urlsplit(server["server"])
    mounted.mkdir(exist_ok=True)
    (mounted / "ca.crt").write_bytes(base64.b64decode(server["certificate-authority-data"]))
    (mounted / "namespace").write_text(submitter.namespace)
    if not (mounted / "token").is_symlink():
        (mounted / "token").symlink_to(token)
    made = f"mount -t tmpfs none /run && mkdir -p {ACCOUNT.parent} && ln -s {mounted} {ACCOUNT}"
    script = f'{made} && exec {STACKCTL} "$0" "$@"'
    env = environment(
        HOME=str(folder),
        STACK_RUNS=str(folder / "runs"),
        KUBERNETES_SERVICE_HOST=str(address.hostname),
        KUBERNETES_SERVICE_PORT=str(address.port),
    )
    env.pop("KUBECONFIG", None)
    argv = ["unshare", "--mount", "sh", "-c", script, *words]
    return background(argv, env=env, cwd=folder, stderr=subprocess.PIPE)


def test_in_a_pod_the_cluster_around_it_is_asked(shared_submitter: Submitter, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(account(shared_submitter, "inside"))
    shared_submitter.submit("seen", *SLEEP)
    with in_pod(shared_submitter, tmp_path / "token", tmp_path, "list", "--json") as running:
        out, said = running.communicate(timeout=60)
    assert "seen" in [row["name"] for row in json.loads(out)], said
    submit = ["submit", "--image", shared_submitter.image, "--name", "inner", *SLEEP]
    with in_pod(shared_submitter, tmp_path / "token", tmp_path, *submit) as running:
        assert running.communicate(timeout=60)[0] == "inner\n"
    shared_submitter.wait_for("inner", "running", 120)
    for words in (["status", "inner"], ["cancel", "inner"]):
        with in_pod(shared_submitter, tmp_path / "token", tmp_path, *words) as running:
            out, said = running.communicate(timeout=60)
            assert (running.returncode, out.startswith("inner: ")) == (0, True), said
    shared_submitter.cancel("seen")


def test_why_the_cluster_is_not_asked_is_said(shared_submitter: Submitter, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    real, person = str(shared_submitter.kubeconfig), command(HOME=str(tmp_path), STACK_RUNS=str(tmp_path / "runs"))
    shared_submitter.submit("there", *SLEEP)

    def listed(**env: str) -> tuple[bool, str]:
        done = person("list", "-n", shared_submitter.namespace, **env)
        assert done.returncode == 0, done.stderr
        return "there" in done.stdout, done.stderr

    assert listed(KUBECONFIG=f"{tmp_path / 'empty'}:{real}") == (True, "")
    assert listed(KUBECONFIG="") == (False, "note: no cluster is asked for its runs: no ~/.kube/config\n")
    wrong = str(tmp_path / "absent")
    assert listed(KUBECONFIG=wrong)[1] == f"note: no cluster is asked for its runs: KUBECONFIG names no file: {wrong}\n"
    found, said = listed(KUBECONFIG=real, HTTPS_PROXY="http://me:secret@127.0.0.1:9", NO_PROXY="", no_proxy="")
    assert not found
    assert said.startswith("note: the proxy http://127.0.0.1:9 on the way to https://"), said
    assert "Connection refused" in said
    shared_submitter.cancel("there")
