"""The control plane's programs as command lines, and the files they read."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness import programs
from tests.cluster.harness.site import Site

QPS = {"qps": 500, "burst": 1000}
"""Requests a second of the controllers: by default a job of 1,000 pods takes most of a minute to create."""

SCHEDULER = """\
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {{kubeconfig: {kubeconfig}, qps: {qps}, burst: {burst}}}
leaderElection: {{leaderElect: false}}
"""

# `ttl 5`: a restarted pod has another address, and its peers must find it in seconds.
COREFILE = """\
cluster.local:53 {{
  bind {address}
  errors
  kubernetes cluster.local {{
    kubeconfig {kubeconfig}
    ttl 5
  }}
}}
"""


@dataclass(frozen=True)
class Credentials:
    """The tokens of one cluster, made when it starts."""

    admin: str
    kubelets: dict[str, str]

    @staticmethod
    def make(nodes: Sequence[str]) -> Credentials:
        return Credentials(secrets.token_hex(16), {name: secrets.token_hex(16) for name in nodes})

    def as_csv(self) -> str:
        """The API server's token file: token, user, uid, groups."""
        rows = [f'{self.admin},admin,admin,"system:masters"']
        rows += [f'{token},system:node:{name},{name},"system:nodes"' for name, token in self.kubelets.items()]
        return "\n".join(rows) + "\n"


def certificate(site: Site) -> Path:
    """The certificate of the API server, which is signed by itself; also what it is checked against."""
    return site.folder / "server.crt"


def kubeconfig(site: Site, token: str) -> str:
    """A kubeconfig for a token, as JSON, which is YAML too."""
    cluster = {"server": site.server, "certificate-authority": str(certificate(site))}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    return json.dumps(content, indent=1) + "\n"


GATED = ("apiserver", "controllers", "scheduler")
"""What of the control plane has features that can be switched on."""


def with_features(name: str, argv: list[str], features: Sequence[str]) -> list[str]:
    """A command line of the control plane with features that are off as a rule, and the API that they take."""
    if not features or name not in GATED:
        return argv
    gates = f"--feature-gates={','.join(f'{feature}=true' for feature in features)}"
    served = ["--runtime-config=scheduling.k8s.io/v1beta1=true"] if name == "apiserver" else []
    return [*argv, gates, *served]


def prepare(site: Site, credentials: Credentials, *, simulated: bool, release: str) -> dict[str, list[str]]:
    """Write the control plane's files; returns its programs' command lines by name.

    Args:
        release: The part that the control plane's programs are of.
        simulated: The nodes are objects only: they stay as they are, and nobody looks for signs of life.
    """
    folder = site.folder
    admin = folder / "kubeconfig"
    admin.write_text(kubeconfig(site, credentials.admin))
    (folder / "tokens.csv").write_text(credentials.as_csv())
    (folder / "scheduler.yaml").write_text(SCHEDULER.format(kubeconfig=admin, **QPS))
    (folder / "Corefile").write_text(COREFILE.format(address=site.control_plane, kubeconfig=admin))
    key = folder / "server.key"
    names = f"subjectAltName=IP:{site.control_plane},DNS:kubernetes.default.svc"
    made = ["-subj", "/CN=kubernetes", "-addext", names, "-keyout", str(key), "-out", str(certificate(site))]
    argv = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *made]
    subprocess.run(argv, check=True, capture_output=True)

    etcd = ["etcd", "--unsafe-no-fsync", f"--data-dir={folder / 'etcd'}", "--log-level=warn"]
    apiserver = [
        programs.program("kube-apiserver", release),
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={site.control_plane}",
        f"--tls-cert-file={certificate(site)}",
        f"--tls-private-key-file={key}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        f"--service-account-key-file={certificate(site)}",
        f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",  # without it, logs and exec look for the nodes' names
        *(["--disable-admission-plugins=TaintNodesByCondition"] if simulated else []),
    ]
    controllers = [
        programs.program("kube-controller-manager", release),
        f"--kubeconfig={admin}",
        "--leader-elect=false",
        f"--service-account-private-key-file={key}",
        f"--root-ca-file={certificate(site)}",
        "--node-monitor-grace-period=20s",  # a lost node is seen in 20 s instead of 50
        "--pvclaimbinder-sync-period=1s",  # a claim that is seen before its volume is looked at again only then
        f"--kube-api-qps={QPS['qps']}",
        f"--kube-api-burst={QPS['burst']}",
        *(["--controllers=*,-node-lifecycle-controller"] if simulated else []),
    ]
    scheduler = [programs.program("kube-scheduler", release), f"--config={folder / 'scheduler.yaml'}"]
    dns = [programs.program("coredns"), f"-conf={folder / 'Corefile'}"]
    return {"etcd": etcd, "apiserver": apiserver, "controllers": controllers, "scheduler": scheduler, "dns": dns}
