"""The nodes that have joined, and what they must agree on."""

from stackrt.launch.cpus import Cpus
from stackrt.launch.environment import Contract
from stackrt.launch.errors import ConfigError
from stackrt.launch.wire import Message


class Seat:
    """A node that has joined."""

    def __init__(self, join: Message, address: str, now: float) -> None:
        self.host, self.address = str(join["host"]), address
        self.procs, self.attempt = int(join["procs"]), int(join["attempt"])
        self.ports = tuple(int(port) for port in join["ports"])
        self.problem: str | None = join["problem"]
        machine, allowed, quota, pool = join["cpus"]
        self.cpus = Cpus(machine, tuple(allowed), quota, pool)
        self.heard = now
        """When it last spoke, on the loop's awake clock."""
        self.offset, self.round_trip = 0.0, float("inf")
        """Its clock minus ours, in seconds, and the round trip of the ping that told."""
        self.ended = self.clean = self.gone = False

    def measure_clock(self, pong: Message, now: float) -> None:
        """Learn from a pong how its clock differs from ours.

        As NTP does: the sample with the shortest round trip has the least error, at most half of it.

        Args:
            pong: `sent`, when we sent the ping, on our clock; `time`, when it answered, on its own; both Unix seconds.
            now: our clock when the pong came.
        """
        sent, theirs = float(pong["sent"]), float(pong["time"])
        if 0 <= now - sent <= self.round_trip:
            self.round_trip, self.offset = now - sent, theirs - (sent + now) / 2


def agree(ours: Contract, join: Message) -> int:
    """Check that a node that wants to join belongs to node 0's job; return its index.

    Raises:
        ConfigError: it does not; the message is for that node's user.
    """
    for variable, name, mine in (
        ("STACK_RUN", "run", ours.run),
        ("STACK_NODES", "nodes", ours.nodes),
        ("STACK_FRAMEWORK", "framework", ours.framework),
    ):
        if join[name] != mine:
            raise ConfigError(f"{variable}={join[name]}, but node 0 has {mine}; give all nodes the same")
    node = int(join["node"])
    if not 0 <= node < ours.nodes:
        raise ConfigError(f"STACK_NODE_RANK={node}: must be from 0 to {ours.nodes - 1}")
    return node


def named(nodes: list[int], total: int) -> str:
    """Name nodes in a sentence: `node 1 of 2`, `nodes 1, 3 of 4`."""
    shown = ", ".join(map(str, nodes[:10])) + (", …" if len(nodes) > 10 else "")
    return f"node{'s' if len(nodes) > 1 else ''} {shown} of {total}"
