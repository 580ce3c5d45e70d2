"""What a person reads: a line as each check ends, and the table at the end."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from stackrt.checks.registry import Check
from stackrt.checks.runner import Row

WIDTH = 24
SLOWEST, WORTH_NAMING = 3, 1.0
"""How many checks are named for the time they took, and the seconds below which none is."""


def line(row: Row) -> str:
    """The line of a check that has just ended."""
    time = f"{row.seconds:6.1f} s" if row.result.status != "skip" else " " * 8
    return f"{row.result.status:<4}  {row.check.name:<{WIDTH}}{time}  {row.result.found}"


def summary(report: dict[str, Any]) -> str:
    """The end of a run: what did not pass, why others were skipped, what took longest, and the counts."""
    rows = report["checks"]
    names = node_names(report)
    parts = [_trouble(row, names) for row in rows if row["status"] in ("fail", "warn")]
    parts += _skips(rows)
    slow = sorted((row for row in rows if row["seconds"] >= WORTH_NAMING), key=lambda row: -row["seconds"])[:SLOWEST]
    if slow:
        parts.append("slowest: " + ", ".join(f"{_name(row, names)} {row['seconds']:.1f} s" for row in slow))
    counts = report["counts"]
    said = ", ".join(f"{counts[key]} {word}" for key, word in WORDS.items() if counts[key] or key == "fail")
    where = f" on {len(report['nodes'])} nodes" if len(names) > 1 else ""
    parts.append(f"{_image(report)}: {said}{where}, in {report['seconds']:.1f} s")
    return "\n".join(parts)


WORDS = {"pass": "passed", "warn": "warned", "fail": "failed", "skip": "skipped"}


def listing(checks: Iterable[Check]) -> str:
    """The table of `--list`."""
    return "\n".join(f"{check.name:<{WIDTH}}{'+'.join(check.needs):<16}{check.criterion}" for check in checks)


def node_names(report: dict[str, Any]) -> list[str]:
    """What to call each node: its number, and its host where that says more."""
    return [
        f"node {node['node']}" + (f", {node['host']}" if node["host"] != f"node-{node['node']}" else "")
        for node in report["nodes"]
    ]


def _trouble(row: dict[str, Any], names: Sequence[str]) -> str:
    head = f"{row['status'].upper()}  {_name(row, names)}"
    labels = (("found", "found"), ("expected", "expected"), ("todo", "to do"))
    lines = [f"      {label:<9} {row[key]}" for key, label in labels if row[key]]
    last = [f"      | {text}" for text in row["output"][-5:]] if row["status"] == "fail" else []
    return "\n".join([head, *lines, *last])


def _skips(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line a reason, with the checks that it holds for."""
    names: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["status"] == "skip" and row["name"] not in names[row["found"]]:
            names[row["found"]].append(row["name"])
    return [f"skipped: {reason}: {', '.join(those)}" for reason, those in names.items()]


def _name(row: dict[str, Any], names: Sequence[str]) -> str:
    return f"{row['name']} ({names[row['node']]})" if len(names) > 1 else str(row["name"])


def _image(report: dict[str, Any]) -> str:
    image = report["image"]
    return f"{image['image']} ({image['variant']})" if image else "no image of this stack"
