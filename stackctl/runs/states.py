"""The states of a run, the same on every backend."""

from __future__ import annotations

from typing import Literal

State = Literal["queued", "pending", "running", "restarting", "succeeded", "failed", "stopped", "unknown", "gone"]
"""`unknown`: it has ended, and nobody wrote down how: its stackctl was killed, or the disk was full.
`gone`: its cluster has it no more, and nobody saw how it ended."""

WAITS = ("queued", "pending", "restarting")
"""Not all of its nodes run yet, or again."""

ENDED = ("succeeded", "failed", "stopped", "unknown", "gone")
