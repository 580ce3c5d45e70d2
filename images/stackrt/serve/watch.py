"""What the server counts, for Prometheus; with several workers, their sum."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stackrt.train.errors import TrainerError

MEMORY = "/dev/shm"  # noqa: S108 - shared memory; a folder of its own is made there
"""Where workers count together if there is room: it is never cleaned, and a full disk does not matter."""

PREFIX = "serve-metrics-"
NEW_SECONDS = 60.0
"""A folder that was made so shortly ago may be about to be held."""

FILE_BYTES = 65_536
FILES = ("counter", "histogram", "gauge_livesum")
"""Of each worker, as prometheus_client names and first sizes them."""


@contextmanager
def shared(workers: int) -> Iterator[str]:
    """Around all that is counted: the folder that the workers share, where there are several; else nothing.

    Raises:
        OSError: No such folder can be made.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # another program's, which may have gone
    if workers == 1:
        yield ""
        return
    place = _place(workers)
    _sweep(Path(place or tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place) as folder:
        held = os.open(folder, os.O_RDONLY)  # its workers hold it, too, for as long as they live
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            yield folder
        finally:
            os.close(held)


def _sweep(place: Path) -> None:
    """Remove what servers that were killed have left: nobody holds it, and it was not made just now."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another person's, or one that is held
            if time.time() - folder.stat().st_mtime < NEW_SECONDS:
                continue
            held = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(held)


def _place(workers: int) -> str | None:
    """Where the folder goes; None for where temporary files usually go."""
    try:
        about = os.statvfs(MEMORY)
    except OSError:
        return None
    enough = about.f_bavail * about.f_frsize >= 2 * workers * len(FILES) * FILE_BYTES
    return MEMORY if enough and os.access(MEMORY, os.W_OK) else None


def join(folder: str) -> None:
    """Have this process count in a folder with others. Its files are written whole: the library maps them into memory,
    and a page of such a file that the disk has no room for ends a process with SIGBUS.

    Raises:
        TrainerError: There is no room for them.
    """
    try:
        for name in FILES:
            (Path(folder) / f"{name}_{os.getpid()}.db").write_bytes(bytes(FILE_BYTES))
    except OSError as error:
        raise TrainerError(f"{folder}: has no room for what several workers count: {error.strerror}") from None
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder


class Watch:
    """The metrics of a worker."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        registry = self._registry = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter(
            "stack_serve_requests", "Requests that were answered.", ["route", "status"], registry=registry
        )
        self.seconds = prometheus.Histogram(
            "stack_serve_request_seconds", "How long answers took.", ["route"], registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
        )  # fmt: skip
        self.first = prometheus.Histogram(
            "stack_serve_first_token_seconds", "Time to the first token.", registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )  # fmt: skip
        self.tokens = prometheus.Counter(
            "stack_serve_tokens", "Tokens of prompts, and tokens that were made.", ["kind"], registry=registry
        )
        self.batch = prometheus.Histogram(
            "stack_serve_batch_rows", "Rows that were computed together.", registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )  # fmt: skip
        self.waiting = prometheus.Gauge(
            "stack_serve_waiting", "Requests that wait for their turn.", registry=registry, multiprocess_mode="livesum"
        )
        self.running = prometheus.Gauge(
            "stack_serve_running", "Requests that are being answered.", registry=registry, multiprocess_mode="livesum"
        )

    def text(self) -> tuple[bytes, str]:
        """All of it in Prometheus' format, and the type of that."""
        import prometheus_client as prometheus

        registry: Any = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            from prometheus_client import multiprocess

            registry = prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return prometheus.generate_latest(registry), prometheus.CONTENT_TYPE_LATEST


def ended(worker: int, folder: str) -> None:
    """A worker's process is gone: what was its own at the moment counts no longer."""
    if folder:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker, folder)  # type: ignore[no-untyped-call]
