from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stackrt.checks.result import Result
from tests.commands import ROOT
from tests.integration.checks.bench import Bench
from tests.integration.checks.cluster import Cluster
from tests.integration.checks.faults import fault, healthy

NETWORK = ("root", "linux")
NCCL = """\
node-0:7:9 [0] NCCL INFO Using network {network}
node-0:7:9 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[0] [send] via {via}
"""
"""Lines of NCCL's log, as src/init.cc and src/transport/net.cc of NCCL 2.29.7 write them."""


SITE = """
import os, socket, time
ahead = float(os.environ.get("TEST_SECONDS_AHEAD", "0"))
real = time.time
time.time = lambda: real() + ahead
name = os.environ.get("TEST_HOSTNAME", "")
if name:
    socket.gethostname = lambda: name
"""
"""What each node's Python runs at its start, so that a node can have another clock and another name."""


@functools.cache
def on_nodes(
    checks: tuple[str, ...],
    plant: Callable[[Cluster], None] | None = None,
    env: tuple[tuple[int, str, str], ...] = (),
    nodes: int = 4,
) -> list[dict[str, Result]]:
    """What checks find, by node; equal calls share a run.

    Args:
        plant: Spoils the network.
        env: Node, name and value of more environment variables.
    """
    with tempfile.TemporaryDirectory() as folder, Cluster(nodes) as cluster:
        (Path(folder) / "sitecustomize.py").write_text(SITE)
        path = os.pathsep.join([folder, str(ROOT / "images")])
        more = {node: {"PYTHONPATH": path} for node in range(nodes)}
        for node, name, value in env:
            more[node][name] = value
        if plant:
            plant(cluster)
        found = cluster.suite(Path(folder), *checks, env=more)
    return [{name: result(row) for name, row in rows.items()} for rows in found]


def result(row: Mapping[str, Any]) -> Result:
    return Result(**{field.name: row[field.name] for field in dataclasses.fields(Result)})


def spoilt() -> list[dict[str, Result]]:
    """Five nodes: 1 may not connect to 3; 2 is told of an interface that it has not; 3 is ahead; 4 has no address."""
    own = ((2, "GLOO_SOCKET_IFNAME", "ib0"), (3, "TEST_SECONDS_AHEAD", "5"))
    nameless = ((4, "GLOO_SOCKET_IFNAME", ""), (4, "TEST_HOSTNAME", "no-such-node.invalid"))
    return on_nodes(("rendezvous",), no_way_from_1_to_3, (*own, *nameless), nodes=5)


def no_way_from_1_to_3(cluster: Cluster) -> None:
    cluster.block(1, 3)


@fault("rendezvous", "a firewall between two nodes", needs=NETWORK)
def firewall(bench: Bench) -> Result:
    found = spoilt()[1]["rendezvous"]
    assert "node 1 cannot reach node 3" in found.found, found
    return found


@fault("rendezvous", "a node whose interface is another one", needs=NETWORK)
def no_interface(bench: Bench) -> Result:
    found = spoilt()[2]["rendezvous"]
    assert "GLOO_SOCKET_IFNAME=ib0" in found.found, found
    return found


@fault("rendezvous", "a clock that is 5 s ahead", needs=NETWORK)
def wrong_clock(bench: Bench) -> Result:
    found = spoilt()[0]["rendezvous"]
    assert "the clock of node 3 differs by +5.0 s" in found.found, found
    return found


@fault("rendezvous", "a node whose name leads nowhere", needs=NETWORK)
def no_name(bench: Bench) -> Result:
    found = spoilt()[4]["rendezvous"]
    assert "its own name 'no-such-node.invalid' cannot be resolved" in found.found, found
    return found


def equal_links(cluster: Cluster) -> None:
    """Slow enough for a busy machine to keep all of them busy."""
    for node in range(4):
        cluster.limit(node, "100mbit")


def sound() -> list[dict[str, Result]]:
    return on_nodes(("rendezvous", "pairwise-busbw"), equal_links)


@healthy("rendezvous", needs=NETWORK)
def four_nodes(bench: Bench) -> Result:
    return sound()[0]["rendezvous"]


@healthy("pairwise-busbw", needs=NETWORK)
def equal_rates(bench: Bench) -> Result:
    return sound()[0]["pairwise-busbw"]


def hold_2(cluster: Cluster) -> None:
    for node in range(4):
        cluster.limit(node, "10mbit" if node == 2 else "100mbit")


@fault("pairwise-busbw", "a node whose link is held to 10 Mbit/s", needs=NETWORK)
def slow_link(bench: Bench) -> Result:
    found = on_nodes(("pairwise-busbw",), hold_2)[0]["pairwise-busbw"]
    assert found.found.startswith("node 2: "), found
    assert "node 3" not in found.found, "its partner of the first pass is cleared by the second"
    return found


def cut_2_off(cluster: Cluster) -> None:
    for node in (0, 1, 3):
        cluster.block(node, 2)


@fault("pairwise-busbw", "a node that no data reaches", needs=NETWORK)
def cut_off(bench: Bench) -> Result:
    return on_nodes(("pairwise-busbw",), cut_2_off)[0]["pairwise-busbw"]


def nccl(bench: Bench, network: str, via: str, *, devices: bool, fabric: str = "") -> Result:
    """The check's verdict on a log of NCCL: there are neither GPUs nor InfiniBand here."""
    context = bench.context(gpus=1, nodes=2)
    (context.scratch.parent / "nccl.log").write_text(NCCL.format(network=network, via=via))
    if devices:
        (context.root / "sys/class/infiniband/mlx5_0").mkdir(parents=True)
    env = {"TEST_NCCL_LOG": str(context.scratch.parent / "nccl.log"), "STACK_FABRIC": fabric}
    return bench.run("transport", context, plant=recorded_log, env=env)


def recorded_log() -> None:
    import os
    from pathlib import Path

    from stackrt.checks import network

    network._log = lambda context: Path(os.environ["TEST_NCCL_LOG"]).read_text()


@fault("transport", "sockets in use on a host with InfiniBand")
def silent_sockets(bench: Bench) -> Result:
    return nccl(bench, "Socket", "NET/Socket/0", devices=True)


@fault("transport", "InfiniBand without GPUDirect RDMA")
def no_direct(bench: Bench) -> Result:
    return nccl(bench, "IB", "NET/IB/0", devices=True)


@fault("transport", "sockets where the profile promises EFA, in a container that sees no device")
def no_efa(bench: Bench) -> Result:
    result = nccl(bench, "Socket", "NET/Socket/0", devices=False, fabric="efa")
    assert "promises efa" in result.found
    assert "docs/kubernetes.md#networks-between-nodes" in result.todo
    return result


@healthy("transport")
def efa(bench: Bench) -> Result:
    return nccl(bench, "AWS Libfabric", "NET/AWS Libfabric/0/GDRDMA", devices=True, fabric="efa")


@healthy("transport")
def infiniband(bench: Bench) -> Result:
    return nccl(bench, "IB", "NET/IB/0/GDRDMA", devices=True)


@healthy("transport")
def plain_network(bench: Bench) -> Result:
    return nccl(bench, "Socket", "NET/Socket/0", devices=False)
