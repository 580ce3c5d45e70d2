"""Do the nodes reach each other, by the network that was paid for, and is none of them slow?"""

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from stackrt.checks import pairs, peers, ranks
from stackrt.checks.context import Context
from stackrt.checks.meeting import MeetingError, gather
from stackrt.checks.pairs import Pair
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped, warned
from stackrt.checks.words import some
from stackrt.launch import nccl

MEET_SECONDS = 20.0
PAIR_SECONDS = 0.5
SKEW_SECONDS = 1.0
JOB_PORT = 29500
"""Where the launchers of a check's own job meet."""
CLOCK = peers.Clock()
OPEN = "let the nodes reach each other on all TCP ports: security groups, firewalls, network policies"


def all_nodes(context: Context, key: str, value: Any) -> list[Any]:
    """What every node brings under a key, by node.

    Raises:
        MeetingError: Some node did not come.
    """
    if context.meeting is None:
        raise MeetingError("nobody has said where the nodes meet")
    return gather(context.meeting, context.node_rank, key, value, MEET_SECONDS, context.nodes)


@check(
    "rendezvous",
    needs=("multi-node",),
    timeout=60.0,
    proves="every node can reach every other, as collectives and stores need it",
    criterion="each pair connects on a free port; each name resolves; clocks differ by less than 1 s",
)
def rendezvous(context: Context) -> Result:
    """Connect to every other node, and compare clocks with it."""
    try:
        address: str | None = peers.own_address()
        why = ""
    except peers.NoAddressError as error:
        address, why = None, str(error)
    with peers.listening(CLOCK) as port:
        try:
            nodes = all_nodes(context, "rendezvous", {"address": address, "port": port})
            offsets, broken = _reach(context, nodes)
            all_nodes(context, "rendezvous done", None)
        except MeetingError as error:
            return failed(
                str(error), expected=f"all {context.nodes} nodes", todo="see the output of those nodes; " + OPEN
            )
    if why:
        return failed(
            f"node {context.node_rank}: {why}",
            expected="a name that leads to an address which others can reach",
            todo="mend /etc/hosts or DNS, or set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the right interface",
        )
    if broken:
        return failed(some(broken, 8), expected="each node reaches each other one", todo=OPEN)
    skew = max((abs(offset) for offset in offsets.values()), default=0.0)
    figures = {"peers": len(offsets), "clock_skew_seconds": round(skew, 4)}
    if skew > SKEW_SECONDS:
        worst = max(offsets, key=lambda node: abs(offsets[node]))
        return warned(
            f"the clock of node {worst} differs by {offsets[worst]:+.1f} s from that of node {context.node_rank}",
            expected=f"less than {SKEW_SECONDS:g} s",
            todo="run a time service (chrony) on the nodes: logs of one failure are read side by side",
            **figures,
        )
    return passed(f"{len(offsets)} peers reached; clocks agree to {skew * 1000:.0f} ms", **figures)


def _reach(context: Context, nodes: Sequence[Mapping[str, Any]]) -> tuple[dict[int, float], list[str]]:
    """The clock offset of each peer that can be reached, and a sentence for each that cannot."""
    offsets: dict[int, float] = {}
    broken = []
    for number, node in enumerate(nodes):
        if number == context.node_rank or node["address"] is None:
            continue
        try:
            offsets[number] = peers.clock_offset(node["address"], node["port"], CLOCK)
        except (OSError, ValueError) as error:
            where = f"{node['address']}:{node['port']}"
            broken.append(f"node {context.node_rank} cannot reach node {number} at {where}: {error}")
    return offsets, broken


@check(
    "pairwise-busbw",
    needs=("multi-node",),
    tags=("bandwidth",),
    timeout=300.0,
    proves="no node slows all others down",
    criterion="passes of pairs: every node has at least 60 % of the rate of the faster half",
)
def pairwise_busbw(context: Context) -> Result:
    """Measure neighbours, then suspects with nodes that are known to be fast; the slow ones are named."""
    try:
        with peers.listening(CLOCK) as port:
            nodes = all_nodes(context, "pairwise", {"address": peers.own_address(), "port": port})
            first = _measure(context, nodes, pairs.first_rounds(context.nodes), "pass 1")
            suspected, good = pairs.suspects(first)
            second = _measure(context, nodes, pairs.second_rounds(suspected, good), "pass 2")
            third = _measure(context, nodes, pairs.second_rounds(pairs.bad(first, second), good), "pass 3")
            all_nodes(context, "pairwise done", None)
    except (MeetingError, peers.NoAddressError) as error:
        return failed(str(error), expected="every pair can be measured", todo="see the check rendezvous; " + OPEN)
    shown = {f"{a}-{b}": round(rate, 2) for (a, b), rate in {**first, **second, **third}.items()}
    figures = {"unit": _unit(context), "pairs": shown}
    if suspected and not good:
        return failed(
            f"no pair of nodes has data through: {', '.join(shown)}",
            expected="every pair can be measured",
            todo="see the check rendezvous; " + OPEN,
            **figures,
        )
    slow = pairs.bad(first, second, third)
    if slow:
        later = [*second.items(), *third.items()]
        reference = max(first.values())
        worst = [f"node {node}: {max(rate for pair, rate in later if node in pair):.2f}" for node in slow]
        return failed(
            f"{', '.join(worst)} {_unit(context)} with a fast node; the fastest pair has {reference:.2f}",
            expected=f"at least {pairs.SLOW:.0%} of what the other nodes have",
            todo="take it out of the job; look at its cables, link speed, switch port and NIC errors",
            **figures,
        )
    note = "; of a single pair only its rate can be told" if len(first) < 2 else ""
    return passed(f"{min(first.values()):.2f} to {max(first.values()):.2f} {_unit(context)}{note}", **figures)


def _measure(
    context: Context, nodes: Sequence[Mapping[str, Any]], rounds: Sequence[Sequence[Pair]], name: str
) -> dict[Pair, float]:
    """Measure some pairs, a round after the other; the same figures come out on every node."""
    rates: dict[Pair, float] = {}
    for number, together in enumerate(rounds):
        secret = all_nodes(context, f"{name} round {number}", secrets.token_hex(16))[0]
        mine = next((pair for pair in together if context.node_rank in pair), None)
        rate = _rate(context, nodes, mine, secret) if mine else None
        said = all_nodes(context, f"{name} round {number} done", [mine, rate])
        for pair, figure in said:
            if pair is not None:
                # Each of the two sends in turn; the slower direction counts.
                key = (pair[0], pair[1])
                rates[key] = min(figure, rates.get(key, float("inf")))
    return rates


def _rate(context: Context, nodes: Sequence[Mapping[str, Any]], pair: Pair, secret: str) -> float:
    """What this node measures with its partner; 0 if it does not come about."""
    if _over_nccl(context):
        return _collective(context, nodes, pair, secret)
    partner = nodes[pair[0] if pair[1] == context.node_rank else pair[1]]
    try:
        return peers.bandwidth(partner["address"], partner["port"], PAIR_SECONDS)
    except (OSError, ValueError) as error:
        print(f"pair {pair}: {error}")
        return 0.0


def _collective(context: Context, nodes: Sequence[Mapping[str, Any]], pair: Pair, secret: str) -> float:
    """GB/s of bus bandwidth of an all-reduce over all GPUs of the two nodes."""
    across = ranks.Across(2, pair.index(context.node_rank), f"{nodes[pair[0]]['address']}:{JOB_PORT}", secret)
    try:
        answers = ranks.run(
            context, "stackrt.checks.network:all_reduce_rank", context.gpus, device="cuda", across=across, timeout=90
        )
    except ranks.RanksError as error:
        print(f"pair {pair}: {error}")
        return 0.0
    return min(float(answer["bus_gb_per_s"]) for answer in answers)


def all_reduce_rank(backend: str = "nccl", megabytes: int = 256, times: int = 10) -> dict[str, float]:
    """In a rank: the bus bandwidth of an all-reduce, 2(n-1)/n times size over time (nccl-tests, PERFORMANCE.md)."""
    import os
    import time

    import torch
    from torch import distributed

    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if backend == "nccl" else torch.device("cpu")
    distributed.init_process_group(backend)
    world = distributed.get_world_size()
    data = torch.ones(megabytes * 2**20 // 4, device=device)
    distributed.all_reduce(data)
    float(data[0])  # waits for the device
    begun = time.monotonic()
    for _ in range(times):
        distributed.all_reduce(data)
    float(data[0])
    seconds = (time.monotonic() - begun) / times
    distributed.destroy_process_group()
    return {"bus_gb_per_s": megabytes * 2**20 / seconds * 2 * (world - 1) / world / 1e9}


def _over_nccl(context: Context) -> bool:
    return context.gpus > 0 and context.image is not None and context.image.framework == "torch"


def _unit(context: Context) -> str:
    return "GB/s" if _over_nccl(context) else "Gbit/s"


@check(
    "transport",
    needs=("multi-node", "gpu"),
    tags=("nccl",),
    frameworks=("torch",),
    timeout=120.0,
    proves="NCCL uses the fast network, and has not fallen back to sockets in silence",
    criterion="NCCL's log says that it uses the host's InfiniBand or EFA devices, or what the profile promises",
)
def transport(context: Context) -> Result:
    """Bring up a communicator over all nodes and read in NCCL's own log which network it chose."""
    devices = sorted(entry.name for entry in (context.root / "sys/class/infiniband").glob("*"))
    try:
        return judge(networks(_log(context)), devices, os.environ.get("STACK_FABRIC") or nccl.ANY)
    except (MeetingError, peers.NoAddressError, ranks.RanksError) as error:
        return failed(
            str(error), expected="a communicator over all nodes", todo="see the checks rendezvous and nccl-single"
        )


def networks(log: str) -> dict[str, bool]:
    """Which networks NCCL says it uses between nodes (IB, Socket, AWS Libfabric), and whether with GPUDirect RDMA."""
    watch, names = nccl.Watch(), list[str]()
    for line in log.encode().splitlines():
        watch.line(line)
        if watch.network is not None:
            names.append(watch.network.name)
    direct = bool(re.search(r"via NET/[^\n]+/GDRDMA", log))
    return dict.fromkeys(names, direct)


def judge(found: Mapping[str, bool], devices: Sequence[str], fabric: str = nccl.ANY) -> Result:
    """The result, from what NCCL uses, which RDMA devices the host has, and what the cluster's profile promises."""
    names = ", ".join(found)
    if not found:
        return skipped("NCCL's log does not say which network it uses")
    if not all(nccl.is_promised(name, fabric) for name in found):
        return failed(
            f"NCCL uses {names}, and the cluster's profile promises {fabric}",
            expected=f"a network of {fabric}: {', '.join(nccl.FABRICS[fabric])}",
            todo=f"build an image with its plugin, or choose another --profile: {nccl.PAGE}",
        )
    if devices and "Socket" in found:
        return failed(
            f"NCCL uses sockets, and the host has {some(devices)}",
            expected="the InfiniBand or EFA devices are used",
            todo="give the container the devices (/dev/infiniband) and locked memory, and NCCL its plugin; "
            "NCCL_DEBUG=INFO says why it passed them over; unset NCCL_IB_DISABLE and NCCL_NET",
        )
    if devices and not all(found.values()):
        return warned(
            f"NCCL uses {names}, without GPUDirect RDMA",
            expected="data goes from GPU to network without the host's memory",
            todo="load nvidia-peermem on the host, or use a driver with DMA-BUF; see NCCL_NET_GDR_LEVEL",
        )
    note = "" if devices else " (the host has no InfiniBand or EFA device)"
    return passed(f"NCCL uses {names}{note}", networks=sorted(found))


def _log(context: Context) -> str:
    """NCCL's log of a small job over all nodes."""
    secret = secrets.token_hex(16)
    nodes = all_nodes(context, "transport", {"address": peers.own_address(), "secret": secret})
    across = ranks.Across(context.nodes, context.node_rank, f"{nodes[0]['address']}:{JOB_PORT}", nodes[0]["secret"])
    env = {
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,NET,GRAPH",
        "NCCL_DEBUG_FILE": str(context.scratch / "nccl.%p.log"),
    }
    function = "stackrt.checks.network:all_reduce_rank"
    arguments = {"megabytes": 8, "times": 2}
    ranks.run(context, function, context.gpus, device="cuda", arguments=arguments, env=env, across=across, timeout=90)
    return "\n".join(file.read_text(errors="replace") for file in context.scratch.glob("nccl.*.log"))
