"""stackctl from Python, on a cluster: the examples of its page, and from inside a pod."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.submitting import Submitter
from tests.commands import PREFIX, ROOT, environment
from tests.support.examples import failures

pytestmark = pytest.mark.needs("cluster")


def test_the_examples_of_the_page_are_true(
    shared_submitter: Submitter, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The page names no image: the catalog's is taken."""
    if shared_submitter.image != f"{PREFIX}pytorch:cpu":
        pytest.skip("the cluster has another image than the catalog's")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(with_namespace(shared_submitter))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STACK_IMAGE_PREFIX", PREFIX)
    assert failures(ROOT / "docs" / "python.md", {"On a cluster"}) == ""
    assert capfd.readouterr() == ("", ""), "nothing is printed"


def with_namespace(person: Submitter) -> str:
    given = yaml.safe_load(Path(person.kubeconfig).read_text())
    for row in given["contexts"]:
        row["context"]["namespace"] = person.namespace
    return yaml.safe_dump(given)


IN_POD = """\
import sys
from stackctl import ClusterOptions, Job, submit
run = submit(Job(command=["true"], procs=1, image=sys.argv[1], name="from-a-pod"))
try:
    run.wait(timeout=0)
except TimeoutError as error:
    print(error.message)
run.wait().check()
print(run.status().nodes[0].state, run.cancel())
"""

MOUNTED = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.mark.needs("root")
def test_a_pods_own_account_submits_to_the_pods_namespace(shared_submitter: Submitter, tmp_path: Path) -> None:
    """With the files of a service account where every pod has them, and the two variables."""
    person, cluster = shared_submitter, shared_submitter.cluster
    rules = next(
        row["rules"]
        for row in yaml.safe_load_all((ROOT / "k8s" / "base" / "rbac.yaml").read_text())
        if (row["kind"], row["metadata"]["name"]) == ("Role", "submitter")
    )
    meta, group = {"namespace": person.namespace, "name": "notebook"}, "rbac.authorization.k8s.io"
    binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": meta}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {**binding, "roleRef": {"apiGroup": group, "kind": "Role", "name": "notebook"},
         "subjects": [{"kind": "ServiceAccount", **meta}]},
    )  # fmt: skip
    account = tmp_path / "account"
    account.mkdir()
    (account / "namespace").write_text(person.namespace)
    (account / "token").write_text(
        cluster.kubectl("create", "token", "-n", person.namespace, "notebook").stdout.strip()
    )
    config = cluster.kubectl(
        "get", "configmap", "kube-root-ca.crt", "-n", person.namespace, "-o", "jsonpath={.data.ca\\.crt}"
    )
    (account / "ca.crt").write_text(config.stdout)
    server = yaml.safe_load(Path(person.kubeconfig).read_text())["clusters"][0]["cluster"]["server"]
    host, _, port = server.removeprefix("https://").partition(":")
    env = environment(
        KUBERNETES_SERVICE_HOST=host, KUBERNETES_SERVICE_PORT=port or "443", STACK_RUNS=str(tmp_path / "runs"),
        HOME=str(tmp_path), KUBECONFIG="",
    )  # fmt: skip
    script = f'mkdir -p {MOUNTED} && mount --bind {account} {MOUNTED} && exec "$@"'
    # A tmpfs of its own over /run: the folder is nobody else's.
    argv = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs /var/run && {script}", "sh",
            sys.executable, "-c", IN_POD, person.image]  # fmt: skip
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    said = "goes on still, after 0 s\nsucceeded from-a-pod: removed\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
