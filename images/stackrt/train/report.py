"""What a training run leaves behind for people and programs; only rank 0 writes it.

`metrics.jsonl` (a line per logged step), TensorBoard events, `loss.png`, `sample.txt` and `result.json`.
"""

import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stackrt.train import paths
from stackrt.train.errors import BadInputError, TrainerError

if TYPE_CHECKING:  # each framework's image lacks the others
    import numpy.typing as npt
    from torch import Tensor

Row = dict[str, Any]
RESULT_SCHEMA = 1
MOST_NATS = math.log(sys.float_info.max)  # a loss of more has no perplexity that a number holds
WARM_STEPS = 3  # the first steps of a process allocate memory and choose kernels


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write into one line that names the file.

    Raises:
        TrainerError: The disk is full or failing.
    """
    try:
        yield
    except OSError as error:
        raise TrainerError(
            f"{path}: could not be written: {error.strerror}; checkpoints already written are safe"
        ) from None


def prepare_folder(out: Path, **later: str) -> None:
    """Make the output folder and prove that it can be written.

    Args:
        out: `--out`.
        later: Folders of other options that are written at the end; they are looked at now, and not made yet.

    Raises:
        BadInputError: It cannot, or one of those could not.
    """
    for name, folder in later.items():
        if folder and not paths.can_be_written(folder):
            raise BadInputError(f"--{name.replace('_', '-')} {folder}: not writable; choose another folder")
    try:
        paths.make_writable(out)
    except OSError as error:
        raise BadInputError(f"--out {out}: not writable: {error.strerror}; choose another folder") from None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old or the new one, never half of either.

    Raises:
        TrainerError: The disk is full or failing.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json`; for what is no number JSON has null alone."""
    write_atomically(path, json.dumps(_finite({"schema_version": RESULT_SCHEMA, **result}), indent=2) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def perplexity(loss: float) -> float | None:
    """What a loss in nats is as perplexity; None where it is more than a number holds."""
    return math.exp(loss) if loss < MOST_NATS else None


def params_sha256(state: "Mapping[str, Tensor]") -> str:
    """SHA-256 over a model's parameters: each name, sorted, then its values as raw fp32 bytes in row order.

    Args:
        state: A model's `state_dict()`, on any device.
    """
    return arrays_sha256({name: tensor.detach().float().cpu().numpy() for name, tensor in state.items()})


def arrays_sha256(weights: "Mapping[str, npt.NDArray[Any]]") -> str:
    """The same for parameters that are fp32 arrays."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].tobytes())
    return digest.hexdigest()


class Throughput:
    """Tokens per second of training alone: evaluation and writing are left out, and so are a process's first steps.

    Args:
        tokens_per_step: Tokens of one optimizer step over all ranks.
        start: The step this process begins at.
    """

    def __init__(self, tokens_per_step: int, start: int) -> None:
        self._tokens_per_step = tokens_per_step
        self._warm_until = start + WARM_STEPS
        self._marked_step = start
        self._mark = time.perf_counter()
        self._steps, self._seconds = 0, 0.0
        self.recent = 0.0  # tokens per second of the last stretch

    def pause(self, step: int) -> None:
        """End a stretch of training with `step` steps done."""
        seconds, steps = time.perf_counter() - self._mark, step - self._marked_step
        self.recent = steps * self._tokens_per_step / max(seconds, 1e-9)
        if self._marked_step >= self._warm_until:
            self._steps += steps
            self._seconds += seconds

    def go_on(self, step: int) -> None:
        """Begin a stretch of training."""
        self._marked_step = step
        self._mark = time.perf_counter()

    @property
    def mean(self) -> float | None:
        """Tokens per second over all that counts; None before anything did."""
        return self._steps * self._tokens_per_step / self._seconds if self._seconds else None


def progress(row: Row, steps: int, seconds_left: float) -> str:
    """One line for a person: `step  50/400  loss 2.713  val 2.684  lr 9.8e-04  31,200 tok/s  eta 41 s`."""
    forms = {"loss": "loss {:.3f}", "val_loss": "val {:.3f}", "lr": "lr {:.1e}", "tokens_per_second": "{:,.0f} tok/s"}
    parts = [f"step {row['step']:>{len(str(steps))}}/{steps}"]
    parts += [form.format(row[key]) for key, form in forms.items() if key in row]
    if "tokens_per_second" in row:
        parts.append(f"eta {seconds_left:.0f} s")
    return "  ".join(parts)


class Metrics:
    """The rows of `metrics.jsonl`, also as TensorBoard scalars.

    Args:
        out: The run's folder.
        after: The step the run goes on from (-1: from nothing); later rows in an existing file are dropped, so that
            steps stay unique and increasing over a resume.
    """

    def __init__(self, out: Path, after: int) -> None:
        self.path = out / "metrics.jsonl"
        self.rows = [row for row in read_rows(self.path) if row["step"] <= after]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
        with writing(self.path):
            self._file = self.path.open("a", encoding="utf-8")
        self._events = _Events(out / "tensorboard", after)

    def add(self, row: Row) -> None:
        """Append one row; its `step` is greater than every earlier one.

        Raises:
            TrainerError: The disk is full or failing.
        """
        self.rows.append(row)
        with writing(self.path):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        self._events.add(row)

    def sync(self) -> None:
        """Put every row on disk; done before a checkpoint, so that a checkpoint never outlives its rows."""
        with writing(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files."""
        with writing(self.path):
            self._file.close()
        self._events.close()


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics file; none if it is absent. A last line that a kill cut short is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    rows: list[Row] = []
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows


class _Events:
    """TensorBoard scalars, written where they are logged: the usual writer's thread would hide a full disk.

    Using TensorBoard's record format directly also spares the import of `torch.utils.tensorboard`.
    """

    def __init__(self, folder: Path, after: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Callable[..., Any] = Event
        self._summary: Any = Summary
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self._path.open("wb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if after >= 0:  # tells TensorBoard to forget what an earlier attempt logged past the checkpoint
            start = SessionLog(status=SessionLog.SessionStatus.START)
            self._write(Event(wall_time=time.time(), step=after + 1, session_log=start))

    def add(self, row: Row) -> None:
        values = [
            self._summary.Value(tag=tag, simple_value=row[key])
            for key, tag in (("loss", "loss/train"), ("val_loss", "loss/val"), ("lr", "lr"),
                             ("grad_norm", "grad_norm"), ("tokens_per_second", "tokens_per_second"))
            if key in row
        ]  # fmt: skip
        self._write(self._event(wall_time=time.time(), step=row["step"], summary=self._summary(value=values)))

    def close(self) -> None:
        with writing(self._path):
            self._file.close()

    def _write(self, event: Any) -> None:
        with writing(self._path):
            self._records.write(event.SerializeToString())
            self._file.flush()


def plot_loss(path: Path, rows: list[Row], bigram: float, title: str) -> None:
    """Draw training and validation loss over steps, with the bigram model's loss as a line.

    Raises:
        TrainerError: The disk is full or failing.
    """
    given = "MPLCONFIGDIR" in os.environ
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, label, style in (("loss", "train", "-"), ("val_loss", "validation", "o-")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=f"{label} (last {points[-1][1]:.3f})", markersize=4)
    axes.axhline(bigram, color="grey", linestyle="--", label=f"bigram model ({bigram:.3f})")
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    with writing(path):
        figure.savefig(path, dpi=120)
    if not given and (made := os.environ.get("MPLCONFIGDIR")):  # for want of a home; ranks leave before it would go
        shutil.rmtree(made, ignore_errors=True)
