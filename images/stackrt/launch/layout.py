"""The job as all its nodes have agreed on it."""

from typing import NamedTuple

from stackrt.launch.cpus import USUAL_SPINS
from stackrt.launch.nccl import ANY


class NodeLayout(NamedTuple):
    """One node as all nodes agreed on it."""

    procs: int
    """Ranks on this node."""
    address: str
    """What other nodes reach it by."""
    ports: tuple[int, ...]
    """Free ports, as many a rank as its framework takes."""
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
