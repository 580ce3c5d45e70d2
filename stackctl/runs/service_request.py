"""A service that is asked for on a cluster: its manifests, and having the cluster make them so."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from stackctl.engines import kubeconfig
from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import where_allowed
from stackctl.errors import InvalidInput, NameTaken
from stackctl.jobs import kubernetes, profiles, quantity, serving
from stackctl.jobs import service_manifests as manifests
from stackctl.jobs.service_manifests import Serving
from stackctl.runs import services
from stackctl.runs.backends.base import variant_of
from stackctl.runs.handle import Tell, Told

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?")


class Asked(msgspec.Struct, frozen=True):
    """A service, and the context of the cluster that is to have it."""

    service: Serving
    context: str


def make(word: str, engine: str, more: Sequence[str], given: Mapping[str, Any]) -> Asked:
    """Check what a person asked for.

    Args:
        word: The model: a path on the claim, or without one a path in the image.
        more: More options of the server.
        given: The command line's options.

    Raises:
        InvalidInput: Something does not fit; names the option.
    """
    from stackrt.serve.naming import name_of

    claim = given["volume"] or ""
    path = f"{serving.MODEL}/{word.strip('/')}" if claim else word
    if not path.startswith("/") or ".." in path.split("/"):
        hint = "name the claim that has it with --volume, or give its full path in an image of your own"
        raise InvalidInput("on a cluster a model is a path on a claim, or in the image", where=word, hint=hint)
    served = serving.model_name(given["model_name"] or name_of(PurePosixPath(path)))
    name = given["name"] or re.sub(r"[^a-z0-9]+", "-", served.lower()).strip("-")[:50].strip("-")
    if not _NAME.fullmatch(name):
        said = "a service's name begins with a letter, and has small letters, digits and dashes, 50 at most"
        raise InvalidInput(said, where=f"--name {name}")
    if given["port"]:
        said = "on a cluster a service has its server's own port"
        raise InvalidInput(said, where="--port", hint="`stackctl forward` gives it another on this machine")
    most = given["autoscale"] or 0
    if most and most <= given["replicas"]:
        raise InvalidInput(f"must be more than --replicas {given['replicas']}", where=f"--autoscale {most}")
    server, gpus = serving.server(engine), given["gpus"] or serving.server(engine).gpus
    context = kubeconfig.current(os.environ, given["context"] or "")
    service = Serving(
        name=name, namespace=given["namespace"] or context.namespace, engine=engine,
        image=variant_of(given["image"] or server.image, gpus=bool(gpus)), model=path, served=served, claim=claim,
        more=tuple(more), replicas=given["replicas"], most=most,
        cpu=quantity.check("--cpu", given["cpu"], "500m or 2") if given["cpu"] else "1",
        memory=quantity.check("--memory", given["memory"], "4Gi") if given["memory"] else "2Gi",
        gpus=gpus, profile=profiles.load(given["profile"]).effective(gpus=bool(gpus)),
        token=_token(given["token_file"]), sources=given["sources"],
    )  # fmt: skip
    if service.token and engine != "stack":
        raise InvalidInput(
            "is for this stack's own server", where="--token-file", hint="put a gateway before the other"
        )
    return Asked(service, context.name)


def _token(file: Any) -> str:
    from stackrt.serve import options
    from stackrt.train.errors import BadInputError

    try:
        return options.token(file)
    except BadInputError as error:
        raise InvalidInput(str(error)) from None


def plan(asked: Asked) -> Told:
    """The manifests, as kubectl takes them."""
    made = manifests.manifests(asked.service)
    return Told(kubernetes.to_yaml(made), kubernetes.as_list(made))


def apply(asked: Asked, tell: Tell) -> Told:
    """Have the cluster make it so: a new service, or a change of the one of this name, server after server.

    Raises:
        NameTaken: Something else has the name.
        ApiError: The cluster refuses it.
    """
    service, cluster = asked.service, Cluster(asked.context)
    first, *others = manifests.manifests(service)
    name, namespace = service.name, service.namespace
    there = cluster.get("Deployment", name, namespace)
    if there is not None and not services.is_ours(there, name):
        raise NameTaken(
            f"the namespace {namespace} has a Deployment of this name that is none of ours",
            where=f"--name {name}", hint="choose another name",
        )  # fmt: skip
    made = cluster.apply(first)
    for manifest in others:
        cluster.apply(manifests.owned(manifest, made["metadata"]["uid"]))
    if there is not None:
        kept = {manifest["kind"] for manifest in others}
        for kind in set(services.KINDS) - kept:  # of what was asked for earlier
            with where_allowed():
                old = cluster.get(kind, name, namespace)
                if old is not None and services.is_ours(old, name):
                    cluster.delete(kind, name, namespace, uid=old["metadata"]["uid"])
    port = service.server.port
    tell(f"{name}: {'changed' if there else 'made'}; in the cluster it is http://{name}.{namespace}:{port}, "
         f"and here after: stackctl forward {name} {port} -n {namespace}")  # fmt: skip
    data = {
        "name": name,
        "namespace": namespace,
        "model": service.served,
        "address": f"http://{name}.{namespace}:{port}",
    }
    return Told(f"{name}\n", data)


def handle(asked: Asked, tell: Tell) -> services.ServiceRun:
    """The handle of it."""
    cluster = Cluster(asked.context)
    found = services.find(cluster, asked.service.name, asked.service.namespace)
    if found is None:
        raise InvalidInput("was removed meanwhile", where=asked.service.name)
    return services.ServiceRun(cluster, found, tell)
