"""The plan of a job as processes on this machine: one launcher a node."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec

from stackctl.jobs.job import Job, contract, launcher


class NodeProcess(msgspec.Struct, frozen=True):
    """One node: the launcher's command line, and what its environment has beyond ours."""

    node: int
    argv: tuple[str, ...]
    env: dict[str, str]


def plan(
    job: Job, *, python: str, out: str, port: int, attempt: int = 1, gpus: Sequence[str] = ()
) -> tuple[NodeProcess, ...]:
    """What to start for each node.

    Args:
        python: The interpreter that runs the launcher.
        out: The run's folder, which all nodes share.
        port: A free port for node 0's launcher.
        gpus: Ids of the GPUs to deal out to the nodes, at least nodes x GPUs of them.
    """
    return tuple(
        NodeProcess(
            node,
            launcher(python, job),
            {
                **({"CUDA_VISIBLE_DEVICES": ",".join(gpus[node * job.gpus :][: job.gpus])} if job.gpus else {}),
                **contract(job, node, rendezvous=f"127.0.0.1:{port}", out=out, attempt=attempt),
            },
        )
        for node in range(job.nodes)
    )


def show(nodes: tuple[NodeProcess, ...]) -> str:
    """The plan as lines that a shell would take, less the token."""
    lines = []
    for node in nodes:
        words = [f"{key}={shlex.quote(value)}" for key, value in node.env.items()]
        lines.append(f"# node {node.node}\n" + " \\\n  ".join([*words, shlex.join(node.argv)]))
    return "\n".join(lines)
