"""What TF_CONFIG says of this rank. Standard library only."""

import json
from collections.abc import Mapping
from typing import NamedTuple


class Place(NamedTuple):
    """A rank among all, and among those of its node."""

    rank: int
    local_rank: int


def workers(environment: Mapping[str, str]) -> list[str]:
    """The addresses of all workers, by rank; none without TF_CONFIG."""
    config = json.loads(environment.get("TF_CONFIG") or "{}")
    return list(config.get("cluster", {}).get("worker", []))


def place(environment: Mapping[str, str]) -> Place:
    """Find this rank; without TF_CONFIG it is alone. Workers with one host name share a node."""
    config = json.loads(environment.get("TF_CONFIG") or "{}")
    workers, rank = config.get("cluster", {}).get("worker", []), config.get("task", {}).get("index", 0)
    hosts = [worker.rpartition(":")[0] for worker in workers]
    return Place(rank, hosts[:rank].count(hosts[rank]) if hosts else 0)
