"""The cluster's programs: where they are kept, and building them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "go"
"""A folder with a go.mod for each part: their dependencies have versions of their own."""

STATE = Path(os.environ.get("STACK_CI_STATE") or "/var/tmp/stackctl-ci") / "cluster"
"""Kept between test runs: programs by version, and what the nodes' images share."""

MADE = {
    "kubernetes": ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet"),
    "kubernetes-next": ("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    "coredns": ("coredns",),
    "kwok": ("kwok",),
    "kueue": ("kueue",),
    "jobset": ("jobset",),
    "trainer": ("trainer-controller-manager",),
    "pause": ("pause",),
}
"""What each part gives. `kubernetes-next` is the control plane of a newer release, with what has come since."""

MODULES = {
    "kubernetes": "k8s.io/kubernetes",
    "kubernetes-next": "k8s.io/kubernetes",
    "coredns": "github.com/coredns/coredns",
    "kwok": "sigs.k8s.io/kwok",
    "kueue": "sigs.k8s.io/kueue",
    "jobset": "sigs.k8s.io/jobset",
    "trainer": "github.com/kubeflow/trainer/v2",
}

FILES = {
    "kwok": ("kustomize/stage",),
    "kueue": ("config/components/crd/bases", "config/components/webhook"),
    "jobset": ("config/components/crd/bases", "config/components/webhook"),
    "trainer": ("manifests/base/crds", "manifests/base/webhook"),
}
"""Folders of a part's module that its program does not work without: how kwok's pods behave, the managers' kinds."""

INSTALLED = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "unshare": "util-linux",
    "mount": "mount",
    "openssl": "openssl",
    "iptables": "iptables",
}
"""What the machine must have, and the Debian package it is in."""

CNI = Path("/usr/lib/cni")


def version(part: str) -> str:
    """The version of the module that a part is made of, as its go.mod has it."""
    found = re.search(rf"\b{re.escape(MODULES[part])} v(\S+)", (SOURCES / part / "go.mod").read_text())
    assert found, f"{part}/go.mod requires no {MODULES[part]}"
    return found[1]


def folder(part: str) -> Path:
    """Where a part's programs are kept: for each content of its sources another place."""
    digest = hashlib.sha256()
    for path in sorted((SOURCES / part).iterdir()):
        digest.update(path.read_bytes())
    return STATE / f"{part}-{digest.hexdigest()[:12]}"


def program(name: str, of: str = "") -> str:
    """The path of a program that was built: of the first part that has it, or of the one that is named."""
    return next(str(folder(part) / name) for part, names in MADE.items() if name in names and of in ("", part))


def unbuilt() -> list[str]:
    return [part for part in MADE if not folder(part).exists()]


def lacks_of_machine() -> str:
    """Why no cluster can run on this machine, whatever is built; empty if one can."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "a cluster of its own needs root on Linux; for another cluster set STACK_TEST_KUBECONFIG"
    missing = [package for name, package in INSTALLED.items() if shutil.which(name) is None]
    if not (CNI / "bridge").exists():
        missing.append("containernetworking-plugins")
    return f"not installed: {', '.join(missing)}" if missing else ""


def lacks() -> str:
    """Why no cluster can run now; empty if one can."""
    missing = ", ".join(unbuilt())
    return lacks_of_machine() or (missing and f"not built: {missing} (make test-cluster builds them)")


def build() -> None:
    """Build what is missing. The compiler's cache, some GB, goes when it is done."""
    for part in unbuilt():
        print(f"cluster: building {part}", flush=True)
        STATE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=STATE, prefix=f"building-{part}-") as scratch:
            build_part(part, Path(scratch))


def build_part(part: str, scratch: Path) -> None:
    """Build one part in a scratch folder, and move it to its place in one step."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOCACHE": str(scratch / "cache"), "GOTMPDIR": str(scratch)}
    source, out = scratch / "source", scratch / "out"
    shutil.copytree(SOURCES / part, source)  # the checkout may change meanwhile
    out.mkdir()
    flags = "-s -w"
    if MODULES.get(part) == "k8s.io/kubernetes":
        major, minor, _ = version(part).split(".")
        values = {"gitVersion": f"v{version(part)}", "gitMajor": major, "gitMinor": minor}
        flags += "".join(f" -X k8s.io/component-base/version.{key}={value}" for key, value in values.items())
    what = "." if (source / "main.go").exists() else "tool"
    argv = ["go", "build", "-buildvcs=false", "-trimpath", "-ldflags", flags, "-o", f"{out}/", what]
    subprocess.run(argv, cwd=source, env=environment, check=True)
    for files in FILES.get(part, ()):
        argv = ["go", "list", "-m", "-f", "{{.Dir}}", MODULES[part]]
        listed = subprocess.run(argv, cwd=source, env=environment, check=True, capture_output=True, text=True)
        shutil.copytree(Path(listed.stdout.strip()) / files, out / Path(files).name)
    for path in scratch.glob("out/**/*"):
        path.chmod(0o755)
    out.rename(folder(part))
