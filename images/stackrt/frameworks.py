"""The frameworks that ranks may use, a row each: what launcher, checks and catalog must know of one.

A new one is a row, and its tests; an image of it takes a family in images/catalog.toml. Standard library only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stackrt.launch.layout import Layout


class Sign(NamedTuple):
    """What a rank that failed has said, where its own words do not tell the cause, and the cause."""

    words: str
    """A regular expression, looked for in all that it printed; empty for any."""
    cause: str
    """For a person: what it is, and what to do."""
    signal: str = ""
    """Only for a rank that died of this signal."""
    device: str = ""
    """Only for ranks that were to use this device."""


class Framework(NamedTuple):
    """One framework; its name is its key in FRAMEWORKS, and that of the module that is imported."""

    title: str
    """Its name as its users write it."""
    short: str
    """What our modules for it have in their names."""
    environment: Callable[[Layout, int, int], dict[str, str]]
    """What tells a rank its place: of the layout, the index of its node and its local rank, the variables."""
    local_rank: Callable[[Mapping[str, str]], int]
    """The local rank, of these variables and those of the launcher."""
    defaults: tuple[str, ...] = ()
    """Of these variables those where the user's value wins; the others are the job's layout."""
    requests: tuple[str, ...] = ()
    """Of these variables those by which a user may ask for something, and the launcher has the last word."""
    error_file: str = ""
    """The variable that says where a rank may write an exception that ends it."""
    lost_peer: str = ""
    """What it says of a peer that is gone: a regular expression. gloo's and NCCL's words are known for all."""
    signs: tuple[Sign, ...] = ()
    """Failures that it tells obscurely. The first that applies is told with the rank's own end."""
    ports_per_rank: int = 0
    """Free ports that each rank listens on, and every rank knows."""
    server: Literal["", "store", "horovod"] = ""
    """What node 0's launcher has for the ranks: torch's store, or Horovod's rendezvous server."""
    import_budget: float = 0.0
    """CPU time that importing it may take, over that of modules of Python's own: twice what it takes in an image as it
    should be. 0 for what is not judged."""
    cpu_package: str = ""
    """The package that brings it without GPUs, where that has another name."""
    extends: bool = False
    """Whether it is compiled into images of another framework and has none of its own."""


def _torch(layout: Layout, node: int, local_rank: int) -> dict[str, str]:
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


def _tensorflow(layout: Layout, node: int, local_rank: int) -> dict[str, str]:
    """Return TF_CONFIG as tf.distribute.cluster_resolver.TFConfigClusterResolver reads it; every rank is a worker."""
    workers = [
        f"{_bracketed(layout.address if index == 0 else other.address)}:{port}"
        for index, other in enumerate(layout.nodes)
        for port in other.ports
    ]
    task = {"type": "worker", "index": layout.first_rank(node) + local_rank}
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task})}


def _horovod(layout: Layout, node: int, local_rank: int) -> dict[str, str]:
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


def horovod_host(node: int) -> str:
    """Return the name that tells Horovod's nodes apart; real host names may repeat (several nodes on one machine)."""
    return f"node-{node}"


def horovod_hosts(layout: Layout) -> str:
    """Return the hosts line of Horovod's runner, `name:slots,…`."""
    return ",".join(f"{horovod_host(index)}:{node.procs}" for index, node in enumerate(layout.nodes))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tensorflow_local_rank(env: Mapping[str, str]) -> int:
    """All nodes have as many ranks: TF_CONFIG does not say which workers share one."""
    return int(json.loads(env["TF_CONFIG"])["task"]["index"]) % int(env["STACK_PROCS"])


FRAMEWORKS: dict[str, Framework] = {
    "torch": Framework(
        title="PyTorch",
        short="torch",
        environment=_torch,
        local_rank=lambda env: int(env["LOCAL_RANK"]),
        requests=("TORCHELASTIC_USE_AGENT_STORE",),
        error_file="TORCHELASTIC_ERROR_FILE",
        lost_peer="DistNetworkError|DistStoreError|Watchdog caught collective",
        server="store",
        import_budget=25.0,
    ),
    "tensorflow": Framework(
        title="TensorFlow",
        short="tf",
        environment=_tensorflow,
        local_rank=_tensorflow_local_rank,
        lost_peer="Socket closed|UnavailableError|failed to connect to all addresses",
        signs=(
            Sign(
                r"Attempt to convert a value \(PerReplica|unsupported type.{0,40}PerReplica",
                "Keras 3 cannot train under MultiWorkerMirroredStrategy: set TF_USE_LEGACY_KERAS=1, by which "
                "tf.keras is tf-keras, or train in a loop of your own, as `stackctl run cnn` does",
            ),
            Sign(
                r"compiled to use [A-Z0-9. ]+ instructions, but these aren't available",
                "this CPU lacks instructions that TensorFlow is compiled for, as AVX: take another machine, or let the "
                "virtual machine see its host's CPU",
            ),
            Sign(
                "",
                "it came upon an instruction that this CPU lacks: TensorFlow needs AVX, which `grep avx /proc/cpuinfo` "
                "looks for; take another machine, or let the virtual machine see its host's CPU",
                signal="SIGILL",
            ),
            Sign(
                "Could not find cuda drivers|Cannot dlopen some GPU libraries|failed call to cuInit",
                "TensorFlow sees no GPU, as a library of CUDA or of the driver cannot be loaded: "
                "`stackctl test tensorflow` names it (driver-floor, cuda-libraries)",
                device="cuda",
            ),
            Sign(
                "Could not start gRPC server|No address added out of total",
                "the port that TF_CONFIG gives this rank is taken by another program of its node: end that, or start "
                "the run again, which takes other ports",
            ),
        ),
        ports_per_rank=1,
        import_budget=50.0,
        cpu_package="tensorflow-cpu",
    ),
    "horovod": Framework(
        title="Horovod",
        short="horovod",
        environment=_horovod,
        local_rank=lambda env: int(env["HOROVOD_LOCAL_RANK"]),
        defaults=("HOROVOD_GLOO_TIMEOUT_SECONDS", "HOROVOD_GLOO_IFACE", "HOROVOD_CPU_OPERATIONS"),
        lost_peer="HorovodInternalError",
        server="horovod",
        extends=True,
    ),
}
"""Every framework by its name: `framework` in the catalog, and what STACK_FRAMEWORK may say."""

DEFAULT = "torch"
"""What a command of the user's own is taken for, where nothing says otherwise."""

OF_IMAGES = tuple(name for name, row in FRAMEWORKS.items() if not row.extends)
"""Those that an image may be of."""
