"""The report of a run: JSON as report.schema.json says, and JUnit made from it."""

import dataclasses
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as Xml

from stackrt.checks.context import ImageFacts, Seen
from stackrt.checks.runner import Row
from stackrt.contract import REPORT_SCHEMA

EXIT_CODES = {"pass": 0, "warn": 1, "fail": 2, "unknown": 3}
"""As monitoring plugins exit."""


def rows_of(rows: Sequence[Row], node: int) -> list[dict[str, Any]]:
    """What the report says of each check of a node."""
    return [
        {
            "name": row.check.name,
            "node": node,
            "subject": row.check.subject,
            "needs": list(row.check.needs),
            "proves": row.check.proves,
            "criterion": row.check.criterion,
            **dataclasses.asdict(row.result),
            "seconds": round(row.seconds, 3),
            "cpu_seconds": round(row.cpu_seconds, 3),
            "output": list(row.output) if row.result.status != "pass" else [],
        }
        for row in rows
    ]


def document(
    *,
    image: ImageFacts | None,
    seen: Seen | None,
    nodes: Sequence[dict[str, Any]],
    checks: Sequence[dict[str, Any]],
    started: str,
    seconds: float,
    overhead: float,
) -> dict[str, Any]:
    """The whole report.

    Args:
        nodes: Facts of each node, as host.facts gives them.
        checks: Rows of all nodes.
        started: UTC, ISO 8601.
        seconds: Wall time of the run.
        overhead: The part of it in which no check ran.
    """
    found = [row["status"] for row in checks]
    status = worst(found)
    return {
        "schema_version": REPORT_SCHEMA,
        "status": status,
        "exit_code": EXIT_CODES[status],
        "counts": {name: found.count(name) for name in ("pass", "warn", "fail", "skip")},
        "started": started,
        "seconds": round(seconds, 3),
        "overhead_seconds": round(overhead, 3),
        "image": dataclasses.asdict(image) if image else None,
        "seen": dataclasses.asdict(seen) if seen else None,
        "nodes": [{"node": number, **facts} for number, facts in enumerate(nodes)],
        "checks": list(checks),
    }


def worst(found: Sequence[str]) -> str:
    """The status of a whole run: fail, else warn, else pass; unknown where nothing was checked."""
    for status in ("fail", "warn", "pass"):
        if status in found:
            return status
    return "unknown"


def junit(report: dict[str, Any]) -> str:
    """The report as JUnit XML: a warning is a passed case with its words in <system-out>."""
    counts = report["counts"]
    suite = Xml.Element(
        "testsuite",
        name="stackrt.checks",
        tests=str(len(report["checks"])),
        failures=str(counts["fail"]),
        errors="0",
        skipped=str(counts["skip"]),
        time=str(report["seconds"]),
        timestamp=report["started"],
    )
    for row in report["checks"]:
        prefix = f"node-{row['node']}." if len(report["nodes"]) > 1 else ""
        case = Xml.SubElement(
            suite, "testcase", classname=prefix + row["subject"], name=row["name"], time=str(row["seconds"])
        )
        if row["status"] == "fail":
            Xml.SubElement(case, "failure", message=_legal(row["found"])).text = _legal(_words(row))
        elif row["status"] == "skip":
            Xml.SubElement(case, "skipped", message=_legal(row["found"]))
        else:
            Xml.SubElement(case, "system-out").text = _legal(_words(row))
    whole = Xml.Element("testsuites")
    whole.append(suite)
    Xml.indent(whole)
    return Xml.tostring(whole, encoding="unicode", xml_declaration=True) + "\n"


def _words(row: dict[str, Any]) -> str:
    parts = [f"{key}: {row[key]}" for key in ("found", "expected", "todo") if row[key]]
    return "\n".join([*parts, *row["output"]])


def _legal(text: str) -> str:
    """Text without what XML cannot hold."""
    return (
        "".join(sign if sign >= " " or sign in "\t\n" else "?" for sign in text)
        .replace("\ufffe", "?")
        .replace("\uffff", "?")
    )
