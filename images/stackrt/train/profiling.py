"""Where a step's time goes: a trace of some steps on each rank, and its split into computing and waiting for others."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from stackrt.train.ranks import Ranks
from stackrt.train.report import write_atomically, writing

ROWS = 12  # of the table in the log
Interval = tuple[float, float]


class Profiler:
    """Traces the steps that `--profile FROM:STEPS` names; costs nothing without it.

    Writes `profile/rank-N.json.gz`, which Perfetto and TensorBoard open, and `profile.json`.

    Args:
        wanted: `FROM:STEPS`, counted from 1, or empty.
        out: The run's folder.
        ranks: This rank's number, and its device.
    """

    def __init__(self, wanted: str, out: Path, ranks: Ranks) -> None:
        self._first, self._steps = (int(part) for part in (wanted or "0:0").split(":"))
        self._out = out
        self._ranks = ranks
        self._running: profile | None = None
        self._began = 0.0

    def before(self, step: int) -> None:
        """Call at the beginning of step 1, 2, ….

        Where the profiler starts, so that its own start is no part of what it measures.
        """
        if step != self._first:
            return
        activities = [ProfilerActivity.CPU]
        if self._ranks.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._running = profile(activities=activities)
        self._running.start()
        self._began = time.perf_counter()

    def after(self, step: int, say: Callable[[str], None]) -> None:
        """Call at the end of a step, with those that are done."""
        if self._running is None or step < self._first + self._steps - 1:
            return
        if self._ranks.device.type == "cuda":
            torch.cuda.synchronize(self._ranks.device)
        seconds = (time.perf_counter() - self._began) / self._steps
        self._running.stop()
        running, self._running = self._running, None
        path = self._out / "profile" / f"rank-{self._ranks.rank}.json.gz"
        with self._ranks.together(), writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            running.export_chrome_trace(str(path))
        on_gpu = self._ranks.device.type == "cuda"
        compute, communication = intervals(running, on_gpu)
        mine = {
            "step": seconds,
            "compute": length(compute) / self._steps,
            "communication": exposed(communication, compute) / self._steps,
        }
        mine["rest"] = max(0.0, seconds - mine["compute"] - mine["communication"])
        rows = self._ranks.gather({name: round(value, 6) for name, value in mine.items()})
        if self._ranks.first:
            found = {"first_step": self._first, "steps": self._steps, "seconds_a_step": rows}
            write_atomically(self._out / "profile.json", json.dumps(found, indent=2) + "\n")
            order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
            say(running.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=50))
            say(
                "profile a step of rank 0: "
                + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in mine.items())
            )


def intervals(running: profile, on_gpu: bool) -> tuple[list[Interval], list[Interval]]:
    """When a profile's rank computed, and when a collective was under way, in seconds: of its GPU, else its threads."""
    compute: list[Interval] = []
    communication: list[Interval] = []
    for event in running.events():  # type: ignore[no-untyped-call]
        if str(event.device_type).endswith("CUDA") != on_gpu:
            continue
        span = (event.time_range.start / 1e6, event.time_range.end / 1e6)
        if event.name.startswith(("nccl", "gloo:")):
            communication.append(span)
        elif on_gpu or event.name.startswith(("aten::", "Optimizer")):
            compute.append(span)
    return compute, communication


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
