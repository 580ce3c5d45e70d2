"""Experiment trackers beside `metrics.jsonl`: MLflow, and Weights & Biases. Training never waits for them.

A thread of rank 0 imports the tracker's package and sends it what is logged. What cannot be sent is kept and tried
again; that it cannot is said once. Each tracker is a `Client` of three methods: add yours to `CLIENTS`.
"""

import importlib.util
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from stackrt.train.errors import BadInputError

Row = Mapping[str, Any]

PAUSE, PATIENCE = 5.0, 60.0  # seconds between tries, and that the end of training waits
MOST_ROWS = 100_000  # kept for a tracker that does not answer; later ones are in metrics.jsonl alone
IDENTITY = "track.json"  # in the run's folder: by what name a tracker goes on with the run


class Client(Protocol):
    """One tracker. Each method may take long and may raise anything; all are called from one thread."""

    def open(self, name: str, folder: Path, options: Mapping[str, Any], before: str) -> str:
        """Begin a run, or go on with the one that `before` names; returns its name for the next time."""

    def send(self, rows: Sequence[Row]) -> None:
        """Log rows, each with a `step`."""

    def close(self, files: Sequence[Path]) -> None:
        """Keep the run's files, and end it."""


class MLflow:
    """MLflow's server at MLFLOW_TRACKING_URI; the experiment is MLFLOW_EXPERIMENT_NAME, else `stackctl`."""

    _run = ""

    def open(self, name: str, folder: Path, options: Mapping[str, Any], before: str) -> str:
        """See `Client`."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        if before:
            self._run = before
            self._client.update_run(before, status="RUNNING")
            return before
        if not self._run:  # else its options were all that could not be sent
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "stackctl"
            found = self._client.get_experiment_by_name(experiment)
            number = found.experiment_id if found else self._client.create_experiment(experiment)
            self._run = str(self._client.create_run(number, run_name=name).info.run_id)
        self._client.log_batch(self._run, params=[Param(key, str(value)[:500]) for key, value in options.items()])
        return self._run

    def send(self, rows: Sequence[Row]) -> None:
        """See `Client`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, row["step"]) for row in rows for key, value in _numbers(row).items()]
        for first in range(0, len(metrics), 1000):  # the most that one request may hold
            self._client.log_batch(self._run, metrics=metrics[first : first + 1000])

    def close(self, files: Sequence[Path]) -> None:
        """See `Client`."""
        for file in files:
            self._client.log_artifact(self._run, str(file))
        self._client.set_terminated(self._run, "FINISHED" if files else "KILLED")


class Wandb:
    """Weights & Biases, as its WANDB_… variables have it; WANDB_MODE=offline writes to the run's folder alone."""

    def open(self, name: str, folder: Path, options: Mapping[str, Any], before: str) -> str:
        """See `Client`."""
        import wandb

        settings = wandb.Settings(silent=True, console="off", init_timeout=60)
        self._folder = folder
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "stackctl", name=name, id=before or None, resume="allow",
            dir=str(folder), config=dict(options), settings=settings,
        )  # fmt: skip
        return str(self._run.id)

    def send(self, rows: Sequence[Row]) -> None:
        """See `Client`."""
        for row in rows:
            self._run.log(_numbers(row), step=row["step"])

    def close(self, files: Sequence[Path]) -> None:
        """See `Client`."""
        for file in files:
            self._run.save(str(file), base_path=str(self._folder), policy="now")
        self._run.finish()


CLIENTS: dict[str, Callable[[], Client]] = {"mlflow": MLflow, "wandb": Wandb}


def check(kind: str) -> None:
    """See, before anything is loaded, that a tracker can be used at all.

    Raises:
        BadInputError: Its package or its address is missing.
    """
    if importlib.util.find_spec(kind) is None:
        raise BadInputError(
            f"--track {kind}: the package {kind} is not installed, and the images do not have it; install it, build it "
            "into an image of your own, or leave --track out: metrics.jsonl and TensorBoard are always written"
        )
    if kind == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise BadInputError(
            "--track mlflow: MLFLOW_TRACKING_URI is not set; give the server's address, as with "
            "`stackctl run --env MLFLOW_TRACKING_URI=http://mlflow:5000`"
        )


class Tracker:
    """Sends rows to a tracker from a thread of its own. No method raises, and none but `finish` waits.

    Args:
        kind: Of `CLIENTS`; empty for none.
        folder: The run's folder.
        options: What the run was asked for.
        resumed: Whether it goes on from a checkpoint, and so in the tracker.
        say: Told once if the tracker does not answer.
    """

    def __init__(
        self, kind: str, folder: Path, options: Mapping[str, Any], say: Callable[[str], None], *, resumed: bool = False
    ) -> None:
        self._kind, self._folder, self._options, self._say = kind, folder, options, say
        self._before = _identity(folder).get(kind, "") if resumed else ""
        self._rows: list[Row] = []
        self._files: Sequence[Path] = ()
        self._ending, self._troubled = False, False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        if kind:
            self._thread = threading.Thread(target=self._work, name=f"track-{kind}", daemon=True)
            self._thread.start()

    def add(self, row: Row) -> None:
        """Log a row, which has a `step`."""
        if self._thread is None:
            return
        with self._changed:
            if len(self._rows) < MOST_ROWS:
                self._rows.append(dict(row))
            self._changed.notify()

    def finish(self, files: Sequence[Path] = ()) -> None:
        """Send what is left and end the run there; with no files it was stopped, and may go on."""
        if self._thread is None:
            return
        with self._changed:
            self._files, self._ending = files, True
            self._changed.notify()
        self._thread.join(PATIENCE)
        if self._thread.is_alive() or self._rows:
            self._trouble("has not taken all in time")

    def _work(self) -> None:
        client, opened = CLIENTS[self._kind](), False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._rows or self._ending)
                rows, ending = list(self._rows), self._ending
            try:
                if not opened:
                    name = os.environ.get("STACK_RUN") or self._folder.resolve().name
                    self._remember(client.open(name, self._folder, self._options, self._before))
                    opened = True
                if rows:
                    client.send(rows)
                with self._changed:
                    del self._rows[: len(rows)]
                if ending:
                    client.close(self._files)
                    return
            except (Exception, SystemExit) as error:
                self._trouble(f"does not answer: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
                with self._changed:
                    if ending:
                        return
                    self._changed.wait_for(lambda: self._ending, PAUSE)

    def _remember(self, identity: str) -> None:
        path = self._folder / IDENTITY
        path.write_text(json.dumps({**_identity(self._folder), self._kind: identity}) + "\n", encoding="utf-8")

    def _trouble(self, what: str) -> None:
        if not self._troubled:
            self._troubled = True
            self._say(f"track   {self._kind} {what}; training goes on, and all is in {self._folder / 'metrics.jsonl'}")


def _identity(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _numbers(row: Row) -> dict[str, float]:
    return {key: value for key, value in row.items() if key != "step" and isinstance(value, int | float)}
