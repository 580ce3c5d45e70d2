"""A person's patch over the pod: read, applied, and held against what a run stands on. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stackctl.errors import InvalidInput
from stackctl.jobs.merge import merge
from stackrt.contract import PORT, PREFIX

Map = dict[str, Any]

OURS = ("JOB_FAILURES", "JOB_DISRUPTIONS")
"""Variables that the number of the attempt is made of; those of the launch contract begin with PREFIX."""

_FIXED_IN_POD = {
    "restartPolicy": "the Job makes new pods, so that all nodes start anew together",
    "subdomain": "nodes find each other by it",
    "hostname": "nodes find each other by it",
    "setHostnameAsFQDN": "nodes find each other by their names",
    "hostNetwork": "use --host-network, which lets nodes find each other there, too",
    "activeDeadlineSeconds": "use --deadline, which is the job's and not one pod's",
}
_FIXED_IN_NODE = {
    "command": "it starts the launcher; the ranks' command stands behind `--`",
    "args": "they start the launcher; the ranks' command stands behind `--`",
    "workingDir": "the shipped code is there",
    "terminationMessagePath": "results and failures are read from it",
    "terminationMessagePolicy": "results and failures are read from it",
    "restartPolicy": "the Job makes new pods, so that all nodes start anew together",
    "image": "use --image",
}
_FIXED_IN_UNPACK = ("command", "args", "volumeMounts")
"""Of the container that unpacks the shipped code."""


def load(path: Path) -> Map:
    """The patch in a file, YAML or JSON.

    Raises:
        InvalidInput: It cannot be read, or is no patch over a pod.
    """
    import yaml

    where = f"--patch {path}"
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=where) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InvalidInput(f"is neither YAML nor JSON: {reason}", where=f"{where}{line}") from None
    shape = "spec: {containers: [{name: node, …}]}"
    if not isinstance(found, dict) or not found:
        raise InvalidInput("is no patch", where=where, hint=f"a patch over a pod has its shape: {shape}")
    if found.get("kind", "Pod") != "Pod":
        raise InvalidInput(f"patches a {found['kind']}, and is laid over a pod", where=where, hint=f"as in {shape}")
    rest = {key: value for key, value in found.items() if key not in ("apiVersion", "kind")}
    unknown = sorted(map(str, rest.keys() - {"metadata", "spec"}))
    if unknown or not all(isinstance(value, dict) for value in rest.values()):
        what = f"{unknown[0]} is no part of a pod's top" if unknown else "metadata and spec are maps"
        raise InvalidInput(what, where=where, hint=f"a patch over a pod has its shape: {shape}")
    _check_words(rest, where)
    return rest


def apply(template: Map, patch: Map, *, node: str, unpack: str, gpu: str, grace: int, taken: frozenset[str]) -> Map:
    """A pod's template with the patch over it.

    Args:
        node: The name of the launcher's container.
        unpack: The name of the container that unpacks shipped code.
        gpu: The resource that GPUs are.
        grace: Seconds that a pod has to end at least.
        taken: Names of variables that are the launcher's to set in each rank.

    Raises:
        InvalidInput: It is no patch over this pod, or would break the run; names the field.
    """
    try:
        made = _with_amounts(merge(template, patch))
    except InvalidInput as error:
        raise InvalidInput(error.message, where=f"--patch: {error.where}", hint=error.hint) from None
    for field, why in _broken(template, made, node, unpack, gpu, grace, taken):
        raise InvalidInput(f"would break the run: {why}", where=f"--patch: {field}")
    return made


def extra_containers(patch: Map, node: str) -> list[str]:
    """The names of containers that a patch sets beside the launcher's: the pod ends when they have ended, too."""
    rows = _rows(_map(patch, "spec"), "containers")
    return [str(row.get("name")) for row in rows if row.get("name") != node and "$patch" not in row]


def _with_amounts(template: Map) -> Map:
    """The same, with amounts as text: in a file they are numbers as well, and both are the same to Kubernetes."""
    spec = dict(_map(template, "spec"))
    for group in ("containers", "initContainers"):
        rows = [{**row, "resources": dict(_map(row, "resources"))} if row.get("resources") else row
                for row in _rows(spec, group)]  # fmt: skip
        for row in rows:
            for part in ("limits", "requests") if row.get("resources") else ():
                if amounts := _map(row["resources"], part):
                    row["resources"][part] = {name: str(amount) for name, amount in amounts.items()}
        spec |= {group: rows} if rows else {}
    return {**template, "spec": spec}


def _check_words(value: Any, where: str) -> None:
    """YAML has dates and keys that are no text; Kubernetes has neither."""
    if isinstance(value, dict):
        for key, row in value.items():
            if not isinstance(key, str):
                raise InvalidInput(f"the key {key!r} is no text", where=where, hint="put it in quotes")
            _check_words(row, where)
    elif isinstance(value, list):
        for row in value:
            _check_words(row, where)
    elif not isinstance(value, str | int | float | bool | None):
        raise InvalidInput(f"{value} is no text, number or truth value", where=where, hint="put it in quotes")


def _broken(
    before: Map, after: Map, node: str, unpack: str, gpu: str, grace: int, taken: frozenset[str]
) -> Iterator[tuple[str, str]]:
    """Fields that a run stands on and that have changed, with the reason why they must not."""
    for part in ("labels", "annotations"):
        old, new = _map(before["metadata"], part), _map(_map(after, "metadata"), part)
        for key in sorted(old.keys() | new.keys()):
            ours = key.startswith(("stackctl.io/", "batch.kubernetes.io/")) or key == "app.kubernetes.io/managed-by"
            if ours and old.get(key) != new.get(key):
                yield f"metadata.{part}.{key}", "runs are found by it"
    old, new = before["spec"], _map(after, "spec")
    for key, why in _FIXED_IN_POD.items():
        if old.get(key) != new.get(key):
            yield f"spec.{key}", why
    if not isinstance(ends := new.get("terminationGracePeriodSeconds"), int) or ends < grace:
        yield "spec.terminationGracePeriodSeconds", f"ranks have {grace} seconds to write a checkpoint; see --grace"
    yield from _broken_node(old, new, node, gpu, taken)
    yield from _broken_others(old, new, node, unpack)


def _broken_node(old: Map, new: Map, name: str, gpu: str, taken: frozenset[str]) -> Iterator[tuple[str, str]]:
    before, after, at = _named(old, name), _named(new, name), f"spec.containers[{name}]"
    if after is None or before is None:
        yield at, "it is the launcher's container"
        return
    for key, why in _FIXED_IN_NODE.items():
        if before.get(key) != after.get(key):
            yield f"{at}.{key}", why
    had, has = _variables(before), _variables(after)
    for key in [*(had.keys() | has.keys())]:
        ours = key.startswith(PREFIX) or key in OURS or (key in taken and key not in had)
        if ours and had.get(key) != has.get(key):
            yield f"{at}.env[{key}]", "it is the launcher's own" if key not in taken else "each rank has its own"
    if _attempt_first(has):
        yield f"{at}.env", "the number of the attempt is made of variables that must stand before it"
    for mount in before["volumeMounts"]:
        if mount not in _rows(after, "volumeMounts"):
            yield f"{at}.volumeMounts[{mount['mountPath']}]", "ranks write there, or read what was asked for"
    amounts = [_map(_map(row, "resources"), "limits").get(gpu) for row in (before, after)]
    if amounts[0] != amounts[1]:
        yield f"{at}.resources.limits.{gpu}", "each rank has its GPU; use --gpus"


def _attempt_first(variables: Mapping[str, Any]) -> bool:
    names = list(variables)
    return any(names.index(name) > names.index(f"{PREFIX}ATTEMPT") for name in OURS if name in names)


def _broken_others(old: Map, new: Map, node: str, unpack: str) -> Iterator[tuple[str, str]]:
    before, after = (_named(spec, unpack, "initContainers") for spec in (old, new))
    for key in _FIXED_IN_UNPACK if before else ():
        if after is None or (before or {}).get(key) != after.get(key):
            yield f"spec.initContainers[{unpack}]", "it unpacks the shipped code"
            break
    volumes = {row.get("name") for row in _rows(new, "volumes")}
    for row in _rows(old, "volumes"):
        if row["name"] not in volumes:
            yield f"spec.volumes[{row['name']}]", "the launcher's container mounts it"
    for group in ("containers", "initContainers"):
        for container in _rows(new, group):
            ports = {row.get("containerPort") for row in _rows(container, "ports")}
            if container.get("name") != node and PORT in ports:
                yield f"spec.{group}[{container.get('name')}].ports[{PORT}]", "node 0's launcher listens there"


def _named(spec: Map, name: str, group: str = "containers") -> Map | None:
    return next((row for row in _rows(spec, group) if row.get("name") == name), None)


def _variables(container: Map) -> dict[str, Map]:
    return {str(row.get("name")): row for row in _rows(container, "env")}


def _rows(of: Map, key: str) -> list[Map]:
    rows = of.get(key) or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidInput("is a list of maps", where=f"--patch: {key}")
    return rows


def _map(of: Map, key: str) -> Map:
    row = of.get(key) or {}
    if not isinstance(row, dict):
        raise InvalidInput("is a map", where=f"--patch: {key}")
    return row
