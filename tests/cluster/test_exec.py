"""`stackctl exec`, `shell` and `forward` into a pod: one that serves, for all of them."""

from __future__ import annotations

import http.client
import json
import subprocess
import urllib.request
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.submitting import Submitter
from tests.commands import ROOT, STACKCTL, environment
from tests.support.entering import SERVE, served, try_a_shell
from tests.support.processes import background
from tests.support.terminal import terminal
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster")

RUN, PORT = "serves", 8000

BASE = list(yaml.safe_load_all((ROOT / "k8s" / "base" / "rbac.yaml").read_text()))
SUBMITTER, DEBUGGER = (
    next(row["rules"] for row in BASE if (row["kind"], row["metadata"]["name"]) == ("Role", name))
    for name in ("submitter", "stackctl-debugger")
)


@pytest.fixture(scope="module")
def serving(shared_submitter: Submitter) -> Submitter:
    """A run of one pod with two ranks, each with a server on the pod's loopback."""
    shared_submitter.submit(RUN, "--procs", "2", "--", "python", "-c", SERVE, str(PORT))
    shared_submitter.wait_for(RUN, "running", 120)
    until(lambda: shared_submitter.stackctl("logs", RUN).stdout.count("up") == 2, 60)
    return shared_submitter


def command(person: Submitter, name: str, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = environment(KUBECONFIG=str(person.kubeconfig), STACK_RUNS=str(person.store))
    argv = [STACKCTL, name, "--namespace", person.namespace, *words]
    return subprocess.run(argv, env=env, cwd=person.store, input=given, capture_output=True, timeout=120, check=False)


def test_a_command_has_the_ranks_environment_our_streams_and_its_own_exit_code(serving: Submitter) -> None:
    script = "echo $RANK of $WORLD_SIZE in $PWD, ${STACK_TOKEN:-no token}; echo said >&2; exit 7"
    done = command(serving, "exec", RUN, "--rank", "1", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"1 of 2 in /workspace, no token\n", b"said\n")
    many = bytes(range(256)) * 12_000
    echoed = command(serving, "exec", RUN, "--", "cat", given=many)
    assert (echoed.returncode, echoed.stderr, echoed.stdout == many) == (0, b"", True)


def test_what_is_not_there_is_one_clear_error(serving: Submitter) -> None:
    absent = command(serving, "exec", RUN, "--", "no-such-program")
    assert (absent.returncode, absent.stdout) == (127, b"")
    assert absent.stderr.startswith(b"error: there is no program 'no-such-program' where the rank runs\n")
    beyond = command(serving, "exec", RUN, "--rank", "2", "--", "true")
    assert (beyond.returncode, beyond.stderr) == (2, b"error: --rank 2: must be from 0 to 1\n")
    serving.submit("waits", "--no-preflight", "--cpu", "900", "--", "true")
    waiting = command(serving, "shell", "waits")
    said, hint = waiting.stderr.decode().splitlines()
    assert (waiting.returncode, hint) == (2, "  `stackctl explain waits` says why")
    assert said.startswith("error: waits: node 0 does not run: it is ")
    serving.cancel("waits")


def test_a_shell_has_a_terminal_that_follows_ours(serving: Submitter) -> None:
    env = environment(KUBECONFIG=str(serving.kubeconfig), STACK_RUNS=str(serving.store), TERM="xterm")
    argv = [STACKCTL, "shell", "--namespace", serving.namespace, RUN, "--rank", "1"]
    with terminal(argv, env=env, cwd=serving.store, size=(33, 77)) as shell:
        try_a_shell(shell, 1)
    piped = command(serving, "shell", RUN, given=b"echo rank $RANK\nexit 4\n")
    assert (piped.returncode, piped.stdout) == (4, b"rank 0\n")


def test_a_port_of_the_pods_loopback_is_reached(serving: Submitter) -> None:
    with forwarding(serving, f"0:{PORT + 1}", "--rank", "1") as running:
        address = served(running)
        for path in ("/a", "/b"):
            with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
                assert answer.read() == f"rank 1 {path}".encode()
        with urllib.request.urlopen(f"http://{address}/large", timeout=60) as answer:
            assert len(answer.read()) == 3_000_000
    with forwarding(serving, "0:9") as running:
        address = served(running)
        with pytest.raises(http.client.RemoteDisconnected):
            urllib.request.urlopen(f"http://{address}/", timeout=30)
        assert running.stderr is not None
        assert f"note: port 9 of rank 0 of {RUN}: " in running.stderr.readline()


def forwarding(person: Submitter, *words: str) -> AbstractContextManager[subprocess.Popen[str]]:
    env = environment(KUBECONFIG=str(person.kubeconfig), STACK_RUNS=str(person.store))
    argv = [STACKCTL, "forward", "--namespace", person.namespace, RUN, *words]
    return background(argv, env=env, cwd=person.store, stderr=subprocess.PIPE)


@pytest.fixture
def debugger(serving: Submitter, tmp_path: Path) -> Submitter:
    """Somebody with the roles that `allow` gives, and nothing else."""
    cluster, meta = serving.cluster, {"namespace": serving.namespace, "name": "debugger"}
    group = "rbac.authorization.k8s.io"
    binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": meta}
    subjects = [{"kind": "ServiceAccount", **meta}]
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {**binding, "roleRef": {"apiGroup": group, "kind": "Role", "name": "debugger"}, "subjects": subjects},
    )
    given = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
    token = cluster.kubectl("create", "token", "-n", serving.namespace, "debugger").stdout.strip()
    given["users"][0]["user"] = {"token": token}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(given))
    return replace(serving, kubeconfig=kubeconfig)


def test_each_verb_of_the_debuggers_role_is_needed(debugger: Submitter) -> None:
    """`create` is asked for by Kubernetes 1.35 and newer only."""
    enter = ["exec", RUN, "--", "echo", "in"]
    allow(debugger, DEBUGGER)
    assert command(debugger, *enter).stdout == b"in\n"
    with forwarding(debugger, f"0:{PORT}") as running:
        assert served(running)
    version = debugger.cluster.kubectl("version", "--output=json").stdout
    newer = int(yaml.safe_load(version)["serverVersion"]["minor"].strip("+")) >= 35
    for resource, words in (("pods/exec", enter), ("pods/portforward", ["forward", RUN, f"0:{PORT}"])):
        for verb in ("get", "create") if newer else ("get",):
            allow(debugger, without(DEBUGGER, resource, verb))
            done = command(debugger, *words)
            assert (done.returncode, done.stdout) == (3, b""), done
            assert f'cannot {verb} resource "{resource}"'.encode() in done.stderr
            assert b"ask for the role stackctl-debugger in k8s/base/rbac.yaml" in done.stderr
            assert b"Traceback" not in done.stderr


def without(rules: Sequence[dict[str, Any]], resource: str, verb: str) -> list[dict[str, Any]]:
    """The rules, less one verb on one resource."""
    return [
        {"apiGroups": rule["apiGroups"], "resources": [each], "verbs": verbs}
        for rule in rules
        for each in rule["resources"]
        if (verbs := [row for row in rule["verbs"] if (each, row) != (resource, verb)])
    ]


def allow(person: Submitter, rules: Sequence[dict[str, Any]]) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": [*SUBMITTER, *rules],
            "metadata": {"namespace": person.namespace, "name": "debugger"}}  # fmt: skip
    person.cluster.apply(role)


def test_a_run_that_has_ended_cannot_be_entered(serving: Submitter) -> None:
    with forwarding(serving, f"0:{PORT}") as running:
        assert served(running)
        for rank in range(2):
            with forwarding(serving, f"0:{PORT + rank}", "--rank", str(rank)) as other:
                urllib.request.urlopen(f"http://{served(other)}/end", timeout=30).close()
        serving.wait_for(RUN, "succeeded", 60)
        assert running.wait(30) == 0, "it ends with the run"
    for words in (["exec", RUN, "--", "true"], ["shell", RUN], ["forward", RUN, str(PORT)]):
        done = command(serving, *words)
        said = f"error: {RUN}: has ended (succeeded): nothing of it runs\n"
        assert (done.returncode, done.stderr.startswith(said.encode())) == (2, True), done.stderr
