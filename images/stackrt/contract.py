"""What controller and launcher agree on, each thing written once: port, limits, exit codes, reasons of failures, names.

Constants alone: both import it at every start. How a node reads its variables: `stackrt.launch.environment`.
"""

import signal
from enum import StrEnum
from pathlib import Path
from typing import Literal, get_args

PREFIX = "STACK_"
"""How the variables of the launch contract begin, and no others of a job."""

PORT = 29400
"""The one fixed port of a job, where STACK_RENDEZVOUS names no other: node 0's launcher listens there."""

MOST_NODES, MOST_PROCS = 65_536, 1_024
"""Nodes of a job, and ranks, or GPUs, of a node."""

TIMEOUT = 300
"""Seconds that nodes wait for one another at the start, where nothing else is said."""

Device = Literal["auto", "cpu", "cuda"]
"""What ranks use."""
DEVICES: tuple[str, ...] = get_args(Device)

Bind = Literal["auto", "none"]
"""Whether ranks keep to the CPUs near their GPUs."""
BINDS: tuple[str, ...] = get_args(Bind)

OK, FAILED = 0, 1
PEERS = 75
"""Exit code (EX_TEMPFAIL of sysexits.h): peers that never came or have gone; another attempt may work."""
CONFIG = 78
"""Exit code (EX_CONFIG of sysexits.h): a configuration that can't work; another attempt would fail too."""
STOPPED = 128 + signal.SIGTERM
"""Exit code of a launcher that was asked to end."""


class Reason(StrEnum):
    """Why a job failed, in its failure.json."""

    CONFIG = "config"
    RANK_FAILED = "rank-failed"
    NODE_LOST = "node-lost"
    PEERS_MISSING = "peers-missing"


STACK = Path("/opt/stack")
"""Where an image keeps what is ours."""
FACTS = STACK / "image.json"
"""What an image says of itself, written by its build."""
FACTS_SCHEMA = 1

PACKED = "packed"
"""The one key of a pod's last message that is too long as it is: base85 of its zlib form."""

LABEL = "io.stackctl."
"""How the labels of our images begin."""
LOCK_LABEL = f"{LABEL}lock"

REPORT_SCHEMA = 1
"""Of the suite's report."""
