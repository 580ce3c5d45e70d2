"""What each framework expects in a rank's environment. Pure: layout in, variables out."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from stackrt.launch.contract import is_loopback
from stackrt.launch.cpus import USUAL_SPINS
from stackrt.launch.nccl import ANY


class NodeLayout(NamedTuple):
    """One node as all nodes agreed on it."""

    procs: int
    """Ranks on this node."""
    address: str
    """What other nodes reach it by."""
    ports: tuple[int, ...]
    """One free port a rank, for frameworks whose ranks all listen (TensorFlow)."""
    threads: int = 1
    """CPU threads of each rank: its share of what this node may use."""


class Layout(NamedTuple):
    """The whole job as all nodes agreed on it."""

    run: str
    attempt: int
    framework: str
    device: str
    """`cpu` or `cuda`."""
    address: str
    """Node 0's host, where rank 0 (torch) or the rendezvous server (Horovod) listens."""
    port: int
    """The port for it."""
    nodes: tuple[NodeLayout, ...]
    fabric: str = ANY
    """The network that the cluster's profile promises between nodes, of `nccl.FABRICS`."""
    agent_store: bool = False
    """Whether node 0's launcher holds torch's store, as torchrun's agent does, and not rank 0."""
    spins: int = USUAL_SPINS
    """GOMP_SPINCOUNT of this node's ranks."""
    interface: str = ""
    """This node's network interface that leads to the other nodes; empty if that is not known."""

    @property
    def world(self) -> int:
        """Ranks in the job."""
        return sum(node.procs for node in self.nodes)

    def first_rank(self, node: int) -> int:
        """The rank of a node's local rank 0."""
        return sum(other.procs for other in self.nodes[:node])


def rank_env(base: Mapping[str, str], layout: Layout, node: int, local_rank: int, error_file: str) -> dict[str, str]:
    """Return the whole environment of one rank.

    Args:
        base: the launcher's own environment; the run's token does not pass.
        layout: the agreed job.
        node: index of the rank's node.
        local_rank: index of the rank within its node.
        error_file: where torch's `@record` may write an exception.
    """
    env = {name: value for name, value in base.items() if name != "STACK_TOKEN"}
    env |= {"STACK_ATTEMPT": str(layout.attempt), "STACK_DEVICE": layout.device}
    # Without it Python holds back what a rank printed last, and a killed rank takes it to the grave.
    env.setdefault("PYTHONUNBUFFERED", "1")
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        env.setdefault(name, env.get("OMP_NUM_THREADS") or str(layout.nodes[node].threads))
    if "OMP_WAIT_POLICY" not in env:
        env.setdefault("GOMP_SPINCOUNT", str(layout.spins))
    if layout.interface:
        env.setdefault("GLOO_SOCKET_IFNAME", layout.interface)
        if layout.device == "cuda" and not is_loopback(layout.address):
            env.setdefault("NCCL_SOCKET_IFNAME", f"={layout.interface}")
    if layout.device == "cuda" and layout.fabric != ANY and local_rank == 0 and len(layout.nodes) > 1:
        # One rank of a node tells which network NCCL takes, in some 50 lines.
        env.setdefault("NCCL_DEBUG_SUBSYS", "INIT,NET")
        env.setdefault("NCCL_DEBUG", "INFO")
    if layout.device == "cuda":
        env.setdefault("NCCL_DEBUG", "WARN")
        # The flight recorder's ring of recent collectives; torch renamed the variable, so both spellings.
        env.setdefault("TORCH_NCCL_TRACE_BUFFER_SIZE", "2000")
        env.setdefault("TORCH_FR_BUFFER_SIZE", "2000")
        env.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    makers = {"torch": torch, "tensorflow": tensorflow, "horovod": horovod}
    made = makers[layout.framework](layout, node, local_rank)
    if layout.framework == "torch":
        made["TORCHELASTIC_ERROR_FILE"] = error_file
    if layout.framework == "horovod":
        return made | {name: value for name, value in env.items() if name not in made or name in HOROVOD_DEFAULTS}
    return env | made


def torch(layout: Layout, node: int, local_rank: int) -> dict[str, str]:
    """Return what torchrun sets for a worker (torch.distributed.elastic.agent.server.local_elastic_agent)."""
    rank, world = layout.first_rank(node) + local_rank, layout.world
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(layout.nodes[node].procs),
        "GROUP_RANK": str(node),
        "GROUP_WORLD_SIZE": str(len(layout.nodes)),
        "ROLE_NAME": "default",
        "ROLE_RANK": str(rank),
        "ROLE_WORLD_SIZE": str(world),
        "MASTER_ADDR": layout.address,
        "MASTER_PORT": str(layout.port),
        "TORCHELASTIC_RESTART_COUNT": str(layout.attempt - 1),
        "TORCHELASTIC_MAX_RESTARTS": str(layout.attempt - 1),
        "TORCHELASTIC_RUN_ID": layout.run,
        "TORCHELASTIC_USE_AGENT_STORE": str(layout.agent_store),
    }


def tensorflow(layout: Layout, node: int, local_rank: int) -> dict[str, str]:
    """Return TF_CONFIG as tf.distribute.cluster_resolver.TFConfigClusterResolver reads it; every rank is a worker."""
    workers = [
        f"{_bracketed(layout.address if index == 0 else other.address)}:{port}"
        for index, other in enumerate(layout.nodes)
        for port in other.ports
    ]
    task = {"type": "worker", "index": layout.first_rank(node) + local_rank}
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task})}


HOROVOD_DEFAULTS = ("HOROVOD_GLOO_TIMEOUT_SECONDS", "HOROVOD_GLOO_IFACE", "HOROVOD_CPU_OPERATIONS")
"""Variables where the user's value wins; the others are the job's layout."""


def horovod(layout: Layout, node: int, local_rank: int) -> dict[str, str]:
    """Return what horovodrun sets for a Gloo worker (horovod.runner.gloo_run).

    The cross communicator of a rank joins the ranks with its local rank on all nodes that have one.
    """
    peers = [index for index, other in enumerate(layout.nodes) if other.procs > local_rank]
    env = {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": layout.address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(layout.port),
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "300",
        "HOROVOD_HOSTNAME": horovod_host(node),
        "HOROVOD_RANK": str(layout.first_rank(node) + local_rank),
        "HOROVOD_SIZE": str(layout.world),
        "HOROVOD_LOCAL_RANK": str(local_rank),
        "HOROVOD_LOCAL_SIZE": str(layout.nodes[node].procs),
        "HOROVOD_CROSS_RANK": str(peers.index(node)),
        "HOROVOD_CROSS_SIZE": str(len(peers)),
    }
    if layout.interface:
        env["HOROVOD_GLOO_IFACE"] = layout.interface
    return env


def layout_names() -> set[str]:
    """Return every variable, of all frameworks, that tells a rank its place in the job."""
    smallest = Layout("", 1, "", "cpu", "", 0, (NodeLayout(1, "", (0,)),))
    made = {name for maker in (torch, tensorflow, horovod) for name in maker(smallest, 0, 0)}
    return made - {*HOROVOD_DEFAULTS, "TORCHELASTIC_USE_AGENT_STORE"}


def horovod_host(node: int) -> str:
    """Return the name that tells Horovod's nodes apart; real host names may repeat (several nodes on one machine)."""
    return f"node-{node}"


def horovod_hosts(layout: Layout) -> str:
    """Return the hosts line of Horovod's runner, `name:slots,…`."""
    return ",".join(f"{horovod_host(index)}:{node.procs}" for index, node in enumerate(layout.nodes))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
