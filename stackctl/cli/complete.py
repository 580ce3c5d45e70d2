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


def sets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Names of data sets that can be fetched."""
    from stackrt.pictures import known

    return [name for name in known.load() if name.startswith(incomplete)]


def profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Names of clusters' profiles."""
    from stackctl.jobs import profiles

    return [name for name in profiles.names() if name.startswith(incomplete)]


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Names of runs in the store, the newest first."""
    import os

    from stackctl.runs import store

    records = store.records(store.home(os.environ))
    return list(dict.fromkeys(record.name for record in records if record.name.startswith(incomplete)))
