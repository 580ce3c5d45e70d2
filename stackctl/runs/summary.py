"""What a run came to, in the words a person reads. Pure: from the files' contents to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stackctl.jobs.job import Job
from stackctl.runs.handle import Told
from stackctl.runs.store import Record


def text(job: Job, record: Record, where: str, folder: Path, result: Mapping[str, Any] | None) -> str:
    """The lines at the end of a run that succeeded or was stopped.

    Args:
        where: What its nodes are, as `processes`, or in which namespace they were.
    """
    lines = [f"{record.name}: {record.state} ({size(job)}, {where})"]
    if result:
        lines += training(result)
    lines += _files(folder, result)
    return "\n".join(lines)


def size(job: Job) -> str:
    """How large a job is: `2 nodes x 1 rank`."""
    return f"{_count(job.nodes, 'node')} x {_count(job.procs, 'rank')}"


def failure(record: Record, folder: Path, report: Mapping[str, Any] | None) -> str:
    """Why a run failed: the launcher's own sentence and the last lines of the rank that failed first."""
    if not report:
        where = f"its logs are in {folder / 'logs'}" if (folder / "logs").is_dir() else "what it said is above"
        return f"{record.name} failed with exit code {record.exit_code}, and left no failure.json; {where}"
    lines = [str(report.get("sentence") or f"{record.name} failed with exit code {record.exit_code}")]
    last = report.get("last_lines")
    lines += [f"  | {line}" for line in last[-15:]] if isinstance(last, list) else []
    return "\n".join(lines)


def training(result: Mapping[str, Any]) -> list[str]:
    """The lines on what training reached."""
    lines = []
    for name, label in (("train", "train loss"), ("val", "validation")):
        first, last = result.get(f"first_{name}_loss"), result.get(f"last_{name}_loss")
        if isinstance(first, float) and isinstance(last, float):
            lines.append(f"  {label:<12} {first:.3f} -> {last:.3f}")
    bigram = result.get("bigram_loss")
    if isinstance(bigram, float):
        lines.append(f"  {'bigram model':<12} {bigram:.3f}   what counting pairs of tokens reaches on the same text")
    accuracy = result.get("accuracy")
    if isinstance(accuracy, float):
        lines.append(f"  {'accuracy':<12} {accuracy:.3f}   on pictures that it was not trained on")
    for unit in ("tokens", "samples"):
        speed = result.get(f"{unit}_per_second")
        if isinstance(speed, int | float):
            lines.append(f"  {'throughput':<12} {speed:,.0f} {unit}/s")
    network = result.get("network")
    if isinstance(network, dict):
        where = "" if network.get("kept") else f" (node {network.get('node')})"
        lines.append(f"  {'network':<12} {network.get('sentence')}{where}")
    return lines


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows below each other, the first of which is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def listed(runs: Sequence[Record]) -> Told:
    """A list of runs."""
    contexts = {run.context for run in runs if run.namespace}
    rows = [(run.name, _seen(run), _place(run, several=len(contexts) > 1), run.started) for run in runs]
    names = ("name", "state", "seen", "started", "backend", "namespace", "context")
    data = [{name: getattr(run, name) for name in names if getattr(run, name)} for run in runs]
    return Told(table([("NAME", "STATE", "WHERE", "STARTED"), *rows]), data)


def _seen(run: Record) -> str:
    return f"{run.state} (seen {run.seen[:16]})" if run.seen else run.state


def _place(run: Record, *, several: bool) -> str:
    if not run.namespace:
        return run.backend
    return f"namespace {run.namespace}" + (f", {run.context}" if several and run.context else "")


def _files(folder: Path, result: Mapping[str, Any] | None) -> list[str]:
    names = {"plot": "loss.png", "sample": "sample.txt", "model": "model.keras", "pictures": "predictions.png"}
    rows = {label: folder / name for label, name in names.items()}
    if result and result.get("checkpoint"):
        rows["checkpoint"] = folder / str(result["checkpoint"])
    rows["logs"] = folder / "logs"
    return [f"  {label:<12} {path}" for label, path in rows.items() if path.exists()]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
