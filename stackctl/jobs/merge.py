"""Kubernetes' strategic merge, for pods: what `kubectl patch --type=strategic` makes of a pod and a patch. Pure.

Lists of the fields below are merged by a key of their elements; all other lists are replaced. The table is that of the
API's own schema, against which a test holds it. Directives within an element that is new have nothing to do, and are
left out; kubectl leaves them in it, and the API server then refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stackctl.errors import InvalidInput

MERGE_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "volumes": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "evictionResponders": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
    "finalizers": "",
}
"""Field -> the key by which elements are the same; empty where elements are words."""

_DIRECTIVE, _RETAIN, _DROP, _ORDER = "$patch", "$retainKeys", "$deleteFromPrimitiveList/", "$setElementOrder/"

Map = dict[str, Any]


def merge(there: Mapping[str, Any], patch: Mapping[str, Any], where: str = "") -> Map:
    """A map with a patch over it; neither is changed.

    Args:
        where: The way to it from the patch's top, for an error.

    Raises:
        InvalidInput: An element lacks its key, or a directive is none.
    """
    if _DIRECTIVE in patch:
        return _directed(patch, where)
    made = dict(there)
    if _RETAIN in patch:
        made = _retained(made, patch, where)
    for key, value in patch.items():
        at = f"{where}.{key}" if where else key
        if key == _RETAIN:
            continue
        if key.startswith(_ORDER):
            raise InvalidInput("is for programs that make patches", where=at, hint="leave it out")
        if key.startswith(_DROP):
            field = key.removeprefix(_DROP)
            made[field] = [word for word in _words(made.get(field) or [], at) if word not in _words(value, at)]
        elif value is None:
            made.pop(key, None)
        elif isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = merge(made[key], value, at)
        elif isinstance(value, list) and isinstance(made.get(key), list) and key in MERGE_KEYS:
            made[key] = _list(made[key], value, MERGE_KEYS[key], at)
        else:
            kept = _plain(value)
            made.pop(key, None) if kept is None else made.update({key: kept})
    return made


def _directed(patch: Mapping[str, Any], where: str) -> Map:
    said = patch[_DIRECTIVE]
    if said == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    if said == "delete":
        return {}
    raise InvalidInput(f"$patch is replace or delete, not {said!r}", where=where)


def _retained(there: Map, patch: Mapping[str, Any], where: str) -> Map:
    kept = _words(patch[_RETAIN], where)
    others = [key for key, value in patch.items() if not key.startswith("$") and value is not None]
    if not set(others) <= set(kept):
        raise InvalidInput("$retainKeys must list every key of the patch beside it", where=where)
    return {key: value for key, value in there.items() if key in kept}


def _list(there: Sequence[Any], patch: Sequence[Any], key: str, where: str) -> list[Any]:
    if not key:
        return list(dict.fromkeys([*_words(there, where), *_words(patch, where)]))
    rows = list(there)
    for element in patch:
        named = isinstance(element, dict) and isinstance(element.get(key), str | int)
        if not named and not (isinstance(element, dict) and element.get(_DIRECTIVE) == "replace"):
            raise InvalidInput(f"every element has its {key}", where=where, hint=f"name it: - {key}: …")
    if any(element.get(_DIRECTIVE) == "replace" for element in patch):
        return [_plain(element) for element in patch if _DIRECTIVE not in element]
    for element in patch:
        if _DIRECTIVE in element:
            if element[_DIRECTIVE] != "delete":
                raise InvalidInput(f"$patch is replace or delete, not {element[_DIRECTIVE]!r}", where=where)
            rows = [row for row in rows if row.get(key) != element[key]]
    order = [row[key] for row in rows]
    wanted = [element for element in patch if _DIRECTIVE not in element]
    found = {row[key]: row for row in rows}
    for element in wanted:
        name = element[key]
        at = f"{where}[{name}]"
        found[name] = merge(found[name], element, at) if name in found else _plain(element)
    ours = list(dict.fromkeys(element[key] for element in wanted))
    left = [name for name in order if name not in ours]
    return [found[name] for name in _interleaved(left, ours, order)]


def _words(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InvalidInput("is a list of words", where=where)
    return value


def _interleaved(left: Sequence[Any], ours: Sequence[Any], order: Sequence[Any]) -> list[Any]:
    """Elements in the patch's order, and those that it does not name before the first that followed them."""
    made, left, ours = [], list(left), list(ours)
    while left and ours:
        before = ours[0] in order and order.index(left[0]) < order.index(ours[0])
        made.append(left.pop(0) if before else ours.pop(0))
    return [*made, *left, *ours]


def _plain(value: Any) -> Any:
    """What a patch adds, without nulls and directives; None for what is one as a whole."""
    if isinstance(value, dict):
        if _DIRECTIVE in value:
            return None
        rows = {key: _plain(row) for key, row in value.items() if key != _RETAIN}
        return {key: row for key, row in rows.items() if row is not None}
    if isinstance(value, list):
        return [row for row in map(_plain, value) if row is not None]
    return value
