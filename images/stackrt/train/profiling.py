"""Where a step's time goes: a trace of some steps on each rank, and its split into reading, computing and waiting."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from stackrt.train.ranks import Ranks
from stackrt.train.report import write_atomically, writing

ROWS = 12  # of the table in the log
DATA = "data"  # the part of a step that reads text
MEMORY_EVENTS = 100_000  # kept for the snapshot
Interval = tuple[float, float]
_cuda: Any = torch.cuda  # parts of it have no types


class Profiler:
    """Traces the steps that `--profile FROM:STEPS` names; costs nothing without it.

    Writes `profile/rank-N.json.gz`, which Perfetto and TensorBoard open, and `profile.json`; of a GPU also
    `profile/memory-rank-N.pickle`, what was allocated when. Under Nsight Systems it leaves the tracing to that.

    Args:
        wanted: `FROM:STEPS`, counted from 1, or empty.
        out: The run's folder.
        ranks: This rank's number, and its device.
    """

    def __init__(self, wanted: str, out: Path, ranks: Ranks) -> None:
        self._first, self._steps = (int(part) for part in (wanted or "0:0").split(":"))
        self._out = out
        self._ranks = ranks
        self._on_gpu = ranks.device.type == "cuda"
        self._nsight = self._on_gpu and "NSYS_PROFILING_SESSION_ID" in os.environ
        self._running: profile | None = None
        self._began = 0.0

    def before(self, step: int) -> None:
        """Call at the beginning of step 1, 2, ….

        Where the profiler starts, so that its own start is no part of what it measures.
        """
        if step != self._first:
            return
        if self._nsight:  # only one program can trace a GPU
            _cuda.profiler.start()
            return
        if self._on_gpu:
            _cuda.memory._record_memory_history(max_entries=MEMORY_EVENTS)
        activities = [ProfilerActivity.CPU]
        if self._on_gpu:
            activities.append(ProfilerActivity.CUDA)
        self._running = profile(activities=activities)
        self._running.start()
        self._began = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of a step, named in traces; on a GPU also as an NVTX range, for Nsight Systems."""
        if self._on_gpu:
            _cuda.nvtx.range_push(name)
        try:
            with record_function(name):
                yield
        finally:
            if self._on_gpu:
                _cuda.nvtx.range_pop()

    def after(self, step: int, say: Callable[[str], None]) -> None:
        """Call at the end of a step, with those that are done."""
        if step != self._first + self._steps - 1:
            return
        if self._on_gpu:
            torch.cuda.synchronize(self._ranks.device)
        if self._nsight:
            _cuda.profiler.stop()
        if self._running is None:
            return
        seconds = (time.perf_counter() - self._began) / self._steps
        self._running.stop()
        running, self._running = self._running, None
        path = self._out / "profile" / f"rank-{self._ranks.rank}.json.gz"
        with self._ranks.together(), writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            running.export_chrome_trace(str(path))
            if self._on_gpu:
                _cuda.memory._dump_snapshot(str(path.with_name(f"memory-rank-{self._ranks.rank}.pickle")))
                _cuda.memory._record_memory_history(enabled=None)
        spans = split(*intervals(running, self._on_gpu), self._on_gpu)
        mine = {"step": seconds} | {name: spent / self._steps for name, spent in spans.items()}
        mine["rest"] = max(0.0, seconds - sum(spans.values()) / self._steps)
        rows = self._ranks.gather({name: round(value, 6) for name, value in mine.items()})
        if self._ranks.first:
            found = {"first_step": self._first, "steps": self._steps, "seconds_a_step": rows}
            write_atomically(self._out / "profile.json", json.dumps(found, indent=2) + "\n")
            order = "self_device_time_total" if self._on_gpu else "self_cpu_time_total"
            say(running.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=50))
            say(
                "profile a step of rank 0: "
                + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in mine.items())
            )
            if not self._on_gpu:
                say("profile on a CPU there is no snapshot of memory, and there are no NVTX ranges: they are CUDA's")


def intervals(running: profile, on_gpu: bool) -> tuple[list[Interval], list[Interval], list[Interval]]:
    """When a profile's rank read, computed, and had a collective under way, in seconds: of its GPU, else threads."""
    data: list[Interval] = []
    compute: list[Interval] = []
    communication: list[Interval] = []
    for event in running.events():  # type: ignore[no-untyped-call]
        by_gpu = str(event.device_type).endswith("CUDA")
        span = (event.time_range.start / 1e6, event.time_range.end / 1e6)
        if event.name == DATA and not by_gpu:
            data.append(span)
        elif by_gpu != on_gpu or (on_gpu and event.is_user_annotation):  # those cover kernels, and what is between them
            continue
        elif event.name.startswith(("nccl", "gloo:")):
            communication.append(span)
        elif on_gpu or event.name.startswith(("aten::", "Optimizer")):
            compute.append(span)
    return data, compute, communication


def split(
    data: list[Interval], compute: list[Interval], communication: list[Interval], on_gpu: bool
) -> dict[str, float]:
    """The time of each, and none twice: what a GPU's computing hides counts as computing, and communication comes last.

    Reading has the CPU for itself, so there it comes first: it computes as well.
    """
    if on_gpu:
        reading, computing = exposed(data, [*compute, *communication]), length(compute)
    else:
        reading, computing = length(data), exposed(compute, data)
    return {"data": reading, "compute": computing, "communication": exposed(communication, [*compute, *data])}


def merged(spans: Iterable[Interval]) -> list[Interval]:
    """The same time in spans that do not overlap, in order."""
    found: list[Interval] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def length(spans: Iterable[Interval]) -> float:
    """The time that some span covers."""
    return sum(end - begin for begin, end in merged(spans))


def exposed(spans: list[Interval], behind: list[Interval]) -> float:
    """The time that some span covers and nothing of `behind` does."""
    return length([*spans, *behind]) - length(behind)
