"""A submission, from what was asked to the manifests: what a dry run prints and what a cluster gets."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stackctl.errors import InvalidInput, MissingHere
from stackctl.jobs import kubernetes
from stackctl.jobs.job import Job
from stackctl.jobs.placement import Placement
from stackctl.runs import store
from stackctl.runs.handle import Tell

if TYPE_CHECKING:  # it imports a good deal that a submission without code does not need
    from stackctl.engines.code_tree import Tree
    from stackctl.runs.shipping import Shipped

_KEY_BYTES = 32

MOST_SECRET_CHARACTERS = 65_536
"""Of all values of a run's own Secret, which holds its code, too, and 1 MiB in all."""


class Submission(msgspec.Struct, frozen=True):
    """A job, its place, and every object that it is in the cluster, in the order in which they are created."""

    job: Job
    placement: Placement
    manifests: list[kubernetes.Manifest]
    tree: Tree | None = None
    """The code that is to be on a claim before it."""

    @property
    def run(self) -> kubernetes.Manifest:
        """What stands for the run: its Job, or what a manager makes that from."""
        return self.manifests[kubernetes.run_of(self.manifests)]

    @property
    def before(self) -> list[kubernetes.Manifest]:
        """What must be there before it."""
        return self.manifests[: kubernetes.run_of(self.manifests)]

    @property
    def owned(self) -> list[kubernetes.Manifest]:
        """What belongs to it, and goes with it."""
        return self.manifests[kubernetes.run_of(self.manifests) + 1 :]

    @property
    def pod(self) -> kubernetes.Manifest:
        """The spec of its pods."""
        return kubernetes.pod_of(self.manifests[0])


def prepare(
    job: Job, placement: Placement, shipped: Shipped | None, env: Mapping[str, str], *, shown: Tell | None = None
) -> Submission:
    """Make the manifests.

    The run's token is drawn from a key of the person's own: the same submission, repeated, gives the same manifests,
    and nobody else can guess it.

    Args:
        shown: They are only shown, and need no key that stays; is told if there is none.

    Raises:
        MissingHere: The key can neither be read nor made.
    """
    text, values = shipped.text if shipped else "", secret_values(placement, env)
    plan = kubernetes.manifests(job, placement, token="", packed=text)
    digest = kubernetes.digest(plan[kubernetes.run_of(plan)])
    token = hmac.new(_key(store.home(env), shown), digest.encode(), hashlib.sha256).hexdigest()
    made = kubernetes.manifests(job, placement, token=token, packed=text, values=values)
    return Submission(job, placement, made, shipped.tree if shipped else None)


def secret_values(placement: Placement, env: Mapping[str, str]) -> dict[str, str]:
    """What a run's own Secret gives its ranks: key -> value, from our environment.

    They are in no other object and no file: nor is their digest, by which a short one could be guessed.

    Raises:
        InvalidInput: A variable is not set here, or a Secret cannot hold its value; the value is not repeated.
    """
    values: dict[str, str] = {}
    for row in placement.secret_env:
        if row.secret:
            continue
        where = f"--secret-env {row.name}"
        if row.name not in env:
            hint = f"set it, or name a Secret of the cluster: {row.name}=SECRET:KEY"
            raise InvalidInput("is not set in your environment", where=where, hint=hint)
        values[row.key] = env[row.name]
        try:
            env[row.name].encode()
        except UnicodeEncodeError:
            raise InvalidInput("its value is not UTF-8, and manifests are", where=where) from None
    if sum(map(len, values.values())) > MOST_SECRET_CHARACTERS:
        raise InvalidInput(f"values are {MOST_SECRET_CHARACTERS:,} characters at most, together", where="--secret-env")
    return values


def _key(home: Path, shown: Tell | None) -> bytes:
    """The person's key, or one for this time alone where that is enough."""
    try:
        return _kept_key(home)
    except OSError as error:
        if shown is None:
            said, hint = f"the key of your runs cannot be kept: {error.strerror}", "name a folder with STACK_RUNS"
            raise MissingHere(said, where=str(home), hint=hint) from None
        shown(f"note: {home}: {error.strerror}: the token below is another each time, until STACK_RUNS names a folder")
        return os.urandom(_KEY_BYTES)


def _kept_key(home: Path) -> bytes:
    """The person's key, made at its first use; only they can read it."""
    path = home / ".token-key"
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        home.mkdir(parents=True, exist_ok=True)
        part = home / f".token-key.{os.getpid()}"
        try:
            part.touch(mode=0o600)
            part.write_bytes(os.urandom(_KEY_BYTES))
            os.link(part, path)  # unlike a rename, never over another's
        except FileExistsError:
            pass
        finally:
            part.unlink(missing_ok=True)
        key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise InvalidInput("is damaged", where=str(path), hint="remove it")
    return key
