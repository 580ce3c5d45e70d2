"""A submission, from what was asked to the manifests: what a dry run prints and what a cluster gets."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stackctl.errors import InvalidInput
from stackctl.jobs import kubernetes
from stackctl.jobs.job import Job
from stackctl.jobs.placement import Placement
from stackctl.runs import store

if TYPE_CHECKING:  # it imports a good deal that a submission without code does not need
    from stackctl.engines import archive

_KEY_BYTES = 32

MOST_SECRET_CHARACTERS = 65_536
"""Of all values of a run's own Secret, which holds its code, too, and 1 MiB in all."""


class Submission(msgspec.Struct, frozen=True):
    """A job, its place, and every object that it is in the cluster; the Job comes first."""

    job: Job
    placement: Placement
    manifests: list[kubernetes.Manifest]


def prepare(job: Job, placement: Placement, packed: archive.Packed | None, env: Mapping[str, str]) -> Submission:
    """Make the manifests.

    The run's token is drawn from a key of the person's own: the same submission, repeated, gives the same manifests,
    and nobody else can guess it.
    """
    text, values = packed.text if packed else "", secret_values(placement, env)
    plan = kubernetes.manifests(job, placement, token="", packed=text)
    token = hmac.new(_key(store.home(env)), kubernetes.digest(plan[0]).encode(), hashlib.sha256).hexdigest()
    return Submission(job, placement, kubernetes.manifests(job, placement, token=token, packed=text, values=values))


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


def _key(home: Path) -> bytes:
    """The person's key, made at its first use; only they can read it."""
    path = home / ".token-key"
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        home.mkdir(parents=True, exist_ok=True)
        part = home / f".token-key.{os.getpid()}"
        part.touch(mode=0o600)
        part.write_bytes(os.urandom(_KEY_BYTES))
        try:
            os.link(part, path)  # unlike a rename, never over another's
        except FileExistsError:
            pass
        finally:
            part.unlink()
        key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise InvalidInput("is damaged", where=str(path), hint="remove it")
    return key
