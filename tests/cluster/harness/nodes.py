"""A node's files: containerd's and the kubelet's configuration, its network, and its command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.cluster.harness import control_plane, images, programs
from tests.cluster.harness.site import BRIDGE, PAUSE, Site

# restrict_oom_score_adj: many containers, CI's among them, may not raise a process's priority above their own.
CONTAINERD = """\
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni}"
  conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{folder}/certs.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def network(site: Site, index: int) -> dict[str, object]:
    """The CNI configuration: one bridge for all nodes, and a range of its addresses for each."""
    first, last = site.pod_range(index)
    ranges = [[{"subnet": site.subnet, "rangeStart": first, "rangeEnd": last, "gateway": site.control_plane}]]
    ipam = {"type": "host-local", "dataDir": "/run/cni", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": BRIDGE, "ipam": ipam}]}


def kubelet_config(site: Site, index: int) -> dict[str, object]:
    """The kubelet's configuration. Nodes share one network, so their ports differ."""
    folder = site.node_folder(index)
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{folder / 'containerd.sock'}",
        "clusterDNS": [site.control_plane],
        "clusterDomain": "cluster.local",
        "resolvConf": str(folder / "resolv.conf"),
        "port": 10250 + 10 * index,
        "healthzPort": 10248 + 10 * index,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{site.name}/{site.node_name(index)}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "featureGates": {"KubeletInUserNamespace": True},  # machine-wide settings may be out of reach
        "nodeLeaseDurationSeconds": 8,
        "nodeStatusReportFrequency": "30s",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    }


def prepare(site: Site, index: int, token: str) -> list[str]:
    """Write a node's files; returns the command line that starts it in namespaces of its own."""
    folder, name = site.node_folder(index), site.node_name(index)
    for part in ("cni", "layers", "var-lib", "var-log"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "cni" / "pods.conflist").write_text(json.dumps(network(site, index)))
    (folder / "resolv.conf").write_text(f"nameserver {site.control_plane}\n")
    (folder / "kubeconfig").write_text(control_plane.kubeconfig(site, token))
    (folder / "kubelet.json").write_text(json.dumps(kubelet_config(site, index)))
    (folder / "containerd.toml").write_text(CONTAINERD.format(folder=folder, pause=PAUSE, cni=programs.CNI))
    kubelet = [
        programs.program("kubelet"),
        f"--config={folder / 'kubelet.json'}",
        f"--kubeconfig={folder / 'kubeconfig'}",
        f"--hostname-override={name}",
        f"--node-ip={site.node_address(index)}",
    ]
    containerd = ["containerd", f"--config={folder / 'containerd.toml'}", "--log-level=warn"]
    layers = str(images.engine_store() or "")
    (folder / "node.json").write_text(json.dumps({"containerd": containerd, "kubelet": kubelet, "layers": layers}))
    script = Path(__file__).with_name("node.py")
    return [
        "unshare",
        "--pid",
        "--mount",
        "--fork",
        "--mount-proc",
        "--kill-child",
        sys.executable,
        str(script),
        str(folder),
    ]
