"""What the shell completes: names of images, workloads and runs."""

from __future__ import annotations

import click


def images(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Names of images."""
    from stackctl.images import catalog

    return [name for name in catalog.load().images if name.startswith(incomplete)]


def workloads(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Names of workloads."""
    from stackctl.jobs import workloads

    return [name for name in workloads.load() if name.startswith(incomplete)]
