"""Reports of the suite: read one, and say how it differs from an older one. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stackctl.errors import InvalidInput
from stackrt.contract import REPORT_SCHEMA

NOTEWORTHY = 0.10
"""A figure that changed by a smaller part is noise."""

Report = dict[str, Any]


def read(text: str, where: str) -> Report:
    """A report from its JSON.

    Raises:
        InvalidInput: It is something else.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"is not JSON: {error}", where=where) from None
    if not isinstance(value, dict) or not {"checks", "nodes", "status"} <= value.keys():
        raise InvalidInput(
            "is not a report of the suite", where=where, hint="`stackctl test IMAGE --json FILE` makes one"
        )
    if value.get("schema_version") != REPORT_SCHEMA:
        raise InvalidInput(
            f"must be {REPORT_SCHEMA}, not {value.get('schema_version')!r}", where=f"{where}: schema_version"
        )
    return value


def failed(report: Report, *, strict: bool) -> bool:
    """Whether a run has failed.

    Args:
        strict: Warnings count.
    """
    return report["status"] not in (("pass",) if strict else ("pass", "warn"))


def trouble(report: Report, *, strict: bool) -> str:
    """What is wrong, in a few words: which checks, and on which hosts if there are several nodes."""
    bad = ("fail", "warn") if strict and not report["counts"]["fail"] else ("fail",)
    rows = [row for row in report["checks"] if row["status"] in bad]
    names = ", ".join(dict.fromkeys(row["name"] for row in rows))
    said = "warned, and --strict counts that" if "warn" in bad else "failed"
    hosts = dict.fromkeys(report["nodes"][row["node"]]["host"] for row in rows)
    where = f" on {', '.join(hosts)}" if len(report["nodes"]) > 1 else ""
    return f"{names} {said}{where}" if names else "nothing was checked"


def compare(old: Report, new: Report) -> list[str]:
    """What changed between two reports, a line each: image and driver, results, and figures."""
    lines = [
        f"{name}: {before or 'none'} -> {after or 'none'}"
        for name, before, after in ((name, _about(old)[name], after) for name, after in _about(new).items())
        if before != after
    ]
    before_rows, after_rows = _rows(old), _rows(new)
    for key in [*after_rows, *(key for key in before_rows if key not in after_rows)]:
        before, after = before_rows.get(key), after_rows.get(key)
        name = key[0] if len(new["nodes"]) < 2 else f"{key[0]} (node {key[1]})"
        if before is None or after is None:
            lines.append(f"{name}: {'new' if before is None else 'gone'}, {(after or before or {})['status']}")
        elif before["status"] != after["status"]:
            lines.append(f"{name}: {before['status']} -> {after['status']}: {after['found']}")
        else:
            lines += [f"{name}: {line}" for line in _figures(before["figures"], after["figures"])]
    return lines


def _about(report: Report) -> dict[str, str]:
    """What a result depends on, in words."""
    image = report["image"] or {}
    nodes = report["nodes"]
    return {
        "image": f"{image.get('image')} ({image.get('variant')})" if image else "",
        "digest": (report["seen"] or {}).get("digest", ""),
        "lock": image.get("lock", ""),
        "nodes": str(len(nodes)),
        "kernel": ", ".join(sorted({node["kernel"] for node in nodes})),
        "driver": ", ".join(sorted({node["driver"] or "none" for node in nodes})),
        "devices": ", ".join(sorted(device["name"] for node in nodes for device in node["devices"])),
    }


def _rows(report: Report) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {(row["name"], row["node"]): row for row in report["checks"]}


def _figures(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Numbers that changed noticeably, with how much."""
    lines = []
    for name, value in after.items():
        was = before.get(name)
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (was, value))
        if numbers and was and abs(value - was) / abs(was) > NOTEWORTHY:
            lines.append(f"{name} {was:g} -> {value:g} ({(value - was) / abs(was):+.0%})")
    return lines
