"""The launch contract: everything a backend tells a node, read once from the environment."""

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stackrt import frameworks
from stackrt.contract import DEVICES, MOST_NODES, MOST_PROCS, PORT, TIMEOUT
from stackrt.launch import nccl
from stackrt.launch.errors import ConfigError

LOOPBACK = "127.0.0.1"
MOST_ATTEMPTS = 1_000_000
SHORTEST_TOKEN = 16
"""Characters. Who records a handshake can try tokens offline, so a token must not be guessable."""


class Contract(NamedTuple):
    """What one node of a job was told. Every field is checked by `read`."""

    run: str
    attempt: int
    nodes: int
    node: int
    procs: int
    """Ranks on this node; 0 for as many as there are visible GPUs (`STACK_PROCS=auto`)."""
    device: str
    host: str
    port: int
    token: str
    framework: str
    out: Path
    timeout: float
    machine: str
    """What reports call this machine."""
    fabric: str = nccl.ANY
    """The network between nodes that the cluster's profile promises, of `nccl.FABRICS`."""
    all_gpus: bool = False
    """Whether this node's one rank has all of its GPUs, in place of a rank for each."""

    def __repr__(self) -> str:
        """Name the node, never the token."""
        return f"Contract(run={self.run!r}, node={self.node}, nodes={self.nodes})"


def read(env: Mapping[str, str]) -> Contract:
    """Parse and check the STACK_* variables; an empty value counts as unset.

    Args:
        env: the process environment.

    Raises:
        ConfigError: a value that can't work; the message names the variable and says what to do.
    """
    nodes = _whole(env, "STACK_NODES", 1, 1, MOST_NODES, "set it to the number of nodes of the job")
    node = _whole(
        env, "STACK_NODE_RANK", 0, 0, nodes - 1, f"STACK_NODES is {nodes}, so number the nodes from 0 to {nodes - 1}"
    )
    host, port = _rendezvous(env, nodes)
    all_gpus, procs = _choice(env, "STACK_ALL_GPUS", ("0", "1"), "0") == "1", _procs(env)
    if all_gpus and procs > 1:
        raise ConfigError(f"STACK_ALL_GPUS=1 with STACK_PROCS={procs}: one rank has all GPUs; leave out one of them")
    return Contract(
        run=_line(env, "STACK_RUN", "run"),
        attempt=_attempt(env),
        nodes=nodes,
        node=node,
        procs=1 if all_gpus else procs,
        device=_choice(env, "STACK_DEVICE", DEVICES),
        host=host,
        port=port,
        token=_token(env, nodes),
        framework=_choice(env, "STACK_FRAMEWORK", tuple(frameworks.FRAMEWORKS), frameworks.DEFAULT),
        out=Path(env.get("STACK_OUT") or "out").absolute(),
        timeout=_seconds(env, "STACK_TIMEOUT", TIMEOUT),
        machine=_line(env, "STACK_HOST", os.uname().nodename),
        fabric=_choice(env, "STACK_FABRIC", tuple(nccl.FABRICS), nccl.ANY),
        all_gpus=all_gpus,
    )


def is_loopback(host: str) -> bool:
    """Whether a host names this machine only, so that nothing outside needs to reach it."""
    return host in ("localhost", "::1") or host.startswith("127.")


def seconds(text: str) -> float:
    """Parse a duration in seconds.

    Raises:
        ValueError: not a finite number of at least 0.
    """
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value


def _whole(env: Mapping[str, str], name: str, default: int, low: int, high: int, advice: str) -> int:
    text = env.get(name) or str(default)
    # int() also takes "1_0", " 1" and other scripts' digits; an environment that says so is a mistake.
    if text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high:
        return int(text)
    raise ConfigError(f"{name}={_shown(text)}: must be a whole number from {low} to {high}; {advice}")


def _attempt(env: Mapping[str, str]) -> int:
    """A number, or several joined with `+`, as in `1+2+`: Kubernetes counts a node's replacements in two places."""
    text = env.get("STACK_ATTEMPT") or "1"
    parts = [part or "0" for part in text.split("+")]
    if all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts):
        attempt = sum(map(int, parts))
        if 1 <= attempt <= MOST_ATTEMPTS:
            return attempt
    raise ConfigError(f"STACK_ATTEMPT={_shown(text)}: must be a whole number from 1 up; count the attempts from 1")


def _procs(env: Mapping[str, str]) -> int:
    if env.get("STACK_PROCS") == "auto":
        return 0
    advice = "set it to the number of ranks on this node, or to auto for one a visible GPU"
    return _whole(env, "STACK_PROCS", 1, 1, MOST_PROCS, advice)


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    try:
        value = seconds(text)
    except ValueError:
        value = 0.0
    if value > 0:
        return value
    raise ConfigError(f"{name}={_shown(text)}: must be a number of seconds above 0; {default:g} is the default")


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...], default: str = "auto") -> str:
    text = env.get(name) or default
    if text in choices:
        return text
    raise ConfigError(f"{name}={_shown(text)}: must be one of {', '.join(choices)}; {default} is the default")


def _line(env: Mapping[str, str], name: str, default: str) -> str:
    text = env.get(name) or default
    if text.isprintable() and len(text) <= 200:
        return text
    raise ConfigError(f"{name}={_shown(text)}: must be one printable line of at most 200 characters; shorten it")


def _token(env: Mapping[str, str], nodes: int) -> str:
    token = env.get("STACK_TOKEN", "")
    if nodes > 1 and not token:
        raise ConfigError("STACK_TOKEN is not set: a job of several nodes needs it; give all nodes the same secret")
    if nodes > 1 and len(token) < SHORTEST_TOKEN:
        raise ConfigError(
            f"STACK_TOKEN is {len(token)} characters long: must be at least {SHORTEST_TOKEN}; "
            "use for example the output of `openssl rand -hex 16` on all nodes"
        )
    return token


def _rendezvous(env: Mapping[str, str], nodes: int) -> tuple[str, int]:
    text = env.get("STACK_RENDEZVOUS", "")
    if not text:
        if nodes > 1:
            raise ConfigError(
                "STACK_RENDEZVOUS is not set: a job of several nodes needs it; set host:port of node 0 on all nodes"
            )
        return LOOPBACK, 0
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    bare_ipv6 = ":" in host and not text.startswith("[")
    valid_port = port.isascii() and port.isdigit() and len(port) < 6 and 1 <= int(port) <= 65_535
    if not colon or not host or bare_ipv6 or not valid_port or not host.isprintable() or " " in host:
        raise ConfigError(
            f"STACK_RENDEZVOUS={_shown(text)}: must be host:port, the port from 1 to 65535; "
            f"for example node-0:{PORT} or [fd00::1]:{PORT}"
        )
    return host, int(port)


def _shown(text: str) -> str:
    """A value from outside, on one line and not too long."""
    safe = text if text.isprintable() else ascii(text)
    return safe if len(safe) <= 80 else safe[:77] + "..."


IS_LINUX = sys.platform == "linux"
