"""TensorFlow's profile as a trace that Perfetto and chrome://tracing open; TensorBoard's plugin reads its own form."""

import gzip
import json
from pathlib import Path
from typing import Any

from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

SUFFIX = ".xplane.pb"
PICO = 1_000_000
"""Picoseconds in a microsecond, the unit of a trace."""


def newest(folder: Path) -> Path | None:
    """The profile that was written last, of those below a TensorBoard folder."""
    return max(folder.glob(f"plugins/profile/*/*{SUFFIX}"), key=lambda path: path.stat().st_mtime, default=None)


def write(profile: Path, to: Path) -> int:
    """Write a profile as a trace; returns the number of its events.

    Args:
        profile: What TensorFlow wrote.
        to: The `.json.gz`.
    """
    space = XSpace()
    space.ParseFromString(profile.read_bytes())
    found = events(space)
    with gzip.open(to, "wt", encoding="utf-8") as file:
        json.dump({"traceEvents": found, "displayTimeUnit": "ms"}, file)
    return sum(event["ph"] == "X" for event in found)


def events(space: Any) -> list[dict[str, Any]]:
    """A plane, as a GPU or the host, is a process of the trace; each of its lines a thread."""
    found: list[dict[str, Any]] = []
    for process, plane in enumerate(space.planes, 1):
        found.append({"ph": "M", "pid": process, "name": "process_name", "args": {"name": plane.name}})
        for thread, line in enumerate(plane.lines, 1):
            place = {"pid": process, "tid": thread}
            name = line.display_name or line.name
            found.append({"ph": "M", **place, "name": "thread_name", "args": {"name": name}})
            for event in line.events:
                told = plane.event_metadata[event.metadata_id]
                found.append(
                    {
                        "ph": "X",
                        **place,
                        "name": told.display_name or told.name,
                        "ts": line.timestamp_ns / 1000 + event.offset_ps / PICO,
                        "dur": event.duration_ps / PICO,
                    }
                )
    return found
