"""The options that say where a cluster's pods go, as whom they run, and what else is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from stackctl.jobs.pod_options import PULL_POLICIES

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--node", "on_nodes", multiple=True, metavar="NAME", help="A node that pods may go to."),
    click.option("--exclude-node", "exclude_nodes", multiple=True, metavar="NAME", help="A node that gets none."),
    click.option("--node-selector", multiple=True, metavar="KEY=VALUE", help="A label that nodes must have."),
    click.option(
        "--toleration",
        "tolerations",
        multiple=True,
        metavar="KEY[=VALUE][:EFFECT]",
        help="A taint that pods may ignore.",
    ),
    click.option("--scheduler", metavar="NAME", help="Who places the pods. [default: the cluster's own scheduler]"),
    click.option(
        "--host-network",
        is_flag=True,
        help="Pods have their node's network: fast, and open to whoever reaches the node.",
    ),
    click.option("--service-account", metavar="NAME", help="Account of the pods, for an identity in the cloud."),
    click.option(
        "--image-pull-secret", "image_pull_secrets", multiple=True, metavar="NAME", help="Secret of a private registry."
    ),
    click.option("--image-pull-policy", type=click.Choice(PULL_POLICIES), help="When to pull. [default: IfNotPresent]"),
    click.option(
        "--run-as", metavar="UID[:GID]", help="User and group of the ranks, and of what they write. [default: 1000]"
    ),
    click.option(
        "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label of the job, its pods and all else of it."
    ),
    click.option(
        "--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Annotation of the job and its pods."
    ),
    click.option(
        "--patch",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A strategic merge patch over the pod, in YAML: for all that has no option.",
    ),
)

PARAMETERS = (
    "on_nodes",
    "exclude_nodes",
    "node_selector",
    "tolerations",
    "scheduler",
    "host_network",
    "service_account",
    "image_pull_secrets",
    "image_pull_policy",
    "run_as",
    "labels",
    "annotations",
    "patch",
)
"""Their names, as `jobs.pod_options.PodOptions` has them."""


def pod_options(command: F) -> F:
    """Add these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
