from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.cluster import Cluster
from tests.integration.checks.faults import fault, healthy

NETWORK = ("root", "linux")
NCCL = """\
node-0:7:9 [0] NCCL INFO Using network {network}
node-0:7:9 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[0] [send] via {via}
"""
"""Lines of NCCL's log, as src/init.cc and src/transport/net.cc of NCCL 2.29.7 write them."""


def on_nodes(
    bench: Bench,
    check: str,
    node: int,
    plant: Callable[[Cluster], None] | None = None,
    env: Mapping[int, Mapping[str, str]] | None = None,
) -> Result:
    """What a check finds on a node, the suite running on four."""
    with Cluster(4) as cluster:
        if plant:
            plant(cluster)
        return result(cluster.suite(bench.tmp, check, env=env)[node][check])


def result(row: Mapping[str, Any]) -> Result:
    return Result(**{field.name: row[field.name] for field in dataclasses.fields(Result)})


@fault("rendezvous", "a firewall between two nodes", needs=NETWORK)
def firewall(bench: Bench) -> Result:
    found = on_nodes(bench, "rendezvous", 1, lambda cluster: cluster.block(1, 3))
    assert "node 1 cannot reach node 3" in found.found, found
    return found


@fault("rendezvous", "a node whose interface is another one", needs=NETWORK)
def no_address(bench: Bench) -> Result:
    found = on_nodes(bench, "rendezvous", 2, env={2: {"GLOO_SOCKET_IFNAME": "ib0"}})
    assert "GLOO_SOCKET_IFNAME=ib0" in found.found, found
    return found


@fault("rendezvous", "a clock that is 5 s ahead", needs=NETWORK)
def wrong_clock(bench: Bench) -> Result:
    (bench.tmp / "sitecustomize.py").write_text("import time\nreal = time.time\ntime.time = lambda: real() + 5\n")
    path = f"{bench.tmp}:images"
    found = on_nodes(bench, "rendezvous", 0, env={3: {"PYTHONPATH": path}})
    assert "the clock of node 3 differs by +5.0 s" in found.found, found
    return found


@healthy("rendezvous", needs=NETWORK)
def four_nodes(bench: Bench) -> Result:
    return on_nodes(bench, "rendezvous", 0)


@fault("pairwise-busbw", "a node whose link is held to 30 Mbit/s", needs=NETWORK)
def slow_link(bench: Bench) -> Result:
    found = on_nodes(bench, "pairwise-busbw", 0, lambda cluster: cluster.limit(2, "30mbit"))
    assert found.found.startswith("node 2: "), found
    assert "node 3" not in found.found, "its partner of the first pass is cleared by the second"
    return found


@fault("pairwise-busbw", "a node that no data reaches", needs=NETWORK)
def cut_off(bench: Bench) -> Result:
    def cut(cluster: Cluster) -> None:
        for node in (0, 1, 3):
            cluster.block(node, 2)

    return on_nodes(bench, "pairwise-busbw", 0, cut)


@healthy("pairwise-busbw", needs=NETWORK)
def equal_links(bench: Bench) -> Result:
    def limit(cluster: Cluster) -> None:
        for node in range(4):
            cluster.limit(node, "300mbit")

    return on_nodes(bench, "pairwise-busbw", 0, limit)


def nccl(bench: Bench, network: str, via: str, *, devices: bool) -> Result:
    """The check's verdict on a log of NCCL: there are neither GPUs nor InfiniBand here."""
    context = bench.context(gpus=1, nodes=2)
    (context.scratch.parent / "nccl.log").write_text(NCCL.format(network=network, via=via))
    if devices:
        (context.root / "sys/class/infiniband/mlx5_0").mkdir(parents=True)
    env = {"TEST_NCCL_LOG": str(context.scratch.parent / "nccl.log")}
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


@healthy("transport")
def infiniband(bench: Bench) -> Result:
    return nccl(bench, "IB", "NET/IB/0/GDRDMA", devices=True)


@healthy("transport")
def plain_network(bench: Bench) -> Result:
    return nccl(bench, "Socket", "NET/Socket/0", devices=False)
