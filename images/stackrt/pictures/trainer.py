"""Training on pictures, whatever the framework: the steps, going on from a checkpoint, stopping together, the end.

A framework's trainer is a `Machine`: it computes steps and sums numbers over the ranks. Arrays go in and come out.
"""

import hashlib
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from stackrt.pictures import batches, options
from stackrt.pictures import data as sets
from stackrt.pictures.data import Floats, Pictures, Split
from stackrt.pictures.formats import Whole
from stackrt.pictures.log import Report
from stackrt.pictures.options import Chosen, Options
from stackrt.train import arrays, checkpoint, report
from stackrt.train.command_line import Parser, check_early, temporary_files
from stackrt.train.errors import INTERRUPTED, BadInputError, TrainerError, ended

THREADS = 1  # a network this small is no faster with more, and alone it trains bit for bit as beside others
_AT_ONCE = 1000  # pictures that are looked at together when nothing is learnt
_PART = 1 << 20  # numbers of a message

Arrays = Mapping[str, npt.NDArray[Any]]


class State(NamedTuple):
    """All that training changes: parameters by name, and what the optimizer keeps."""

    weights: Mapping[str, Floats]
    optimizer: Arrays


class Machine(Protocol):
    """A framework with a network on this rank, joined to those of the other ranks; all begin with the same weights."""

    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def world_size(self) -> int: ...  # noqa: D102
    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""

    def total(self, numbers: Whole) -> Whole:
        """The sum of each number over the ranks; every rank calls it, with as many."""

    def step(self, pictures: Floats, labels: Whole, lr: float) -> None:
        """Train on this rank's part of a step, together with the other ranks."""

    def loss(self) -> float:
        """The mean loss of the last step over all ranks; every rank calls it."""

    def guesses(self, pictures: Floats) -> Whole:
        """The likeliest label of each picture."""

    def state(self) -> State:
        """What a checkpoint holds."""

    def restore(self, state: State) -> None:
        """Take over a checkpoint's."""


def train(o: Options, workload: str, machine: Machine, data: Pictures) -> int:
    """Train, and leave weights and result; return the exit code: 0, or 128 + the signal that asked to stop.

    Raises:
        TrainerError: The ranks have different pictures or end with different weights, or a checkpoint cannot be used.
    """
    batches.check(o.batch_size, machine.world_size, len(data.train))
    log = Report(o, workload, machine.rank, machine.world_size, machine.device)
    _same_everywhere(machine, data.digest, f"--data {o.data}: nodes have different pictures under that name")
    identity = _identity(o, workload, machine, data)
    start, history, resumed = _resume(o, machine, identity, log)
    log.begin(data, start, history)
    if resumed:
        log.say(f"going on from {resumed} after step {start}")

    def save(step: int) -> None:
        log.sync()
        state = machine.state()
        if machine.rank == 0:
            held = {"step": step, "fingerprint": identity, "history": log.history, **state._asdict()}
            checkpoint.save(o.out / "checkpoints", step, held, o.keep, "npz")

    stop = Stop(machine)
    done, saved, number = start, start, 0
    for step in range(start, o.steps):
        if number := stop.agreed():
            break
        chosen = batches.batch(o, step, machine.rank, machine.world_size, len(data.train))
        pictures = data.floats(data.train.pictures[chosen])
        machine.step(pictures, data.train.labels[chosen], batches.learning_rate(o, step))
        done = step + 1
        evaluating = o.eval_every and done % o.eval_every == 0
        if log.due(done) or evaluating:
            more = {"val_accuracy": accuracy(machine, data, data.validation)} if evaluating else {}
            log.add(done, machine.loss(), **more)
        if o.checkpoint_every and done % o.checkpoint_every == 0:
            save(saved := done)
    if saved != done:
        save(done)
    number = stop.close() or number
    if number:
        log.close()
        log.say(f"stopped by {signal.Signals(number).name} after step {done}; the same command goes on from there")
        return INTERRUPTED + number
    weights = machine.state().weights
    wrong = "the ranks end with different weights; the machine or its network computes wrongly"
    _same_everywhere(machine, report.arrays_sha256(weights), wrong)
    validated, tested = (accuracy(machine, data, part) for part in (data.validation, data.test))
    about = {"validation_accuracy": validated, "data": data.name, "data_sha256": data.digest, "resumed_from": resumed}
    log.finish(weights, tested, **about)
    return 0


def accuracy(machine: Machine, data: Pictures, part: Split) -> float:
    """The part of some pictures that is read rightly; each rank looks at its share."""
    right = 0
    for first in range(machine.rank * _AT_ONCE, len(part), machine.world_size * _AT_ONCE):
        chosen = slice(first, first + _AT_ONCE)
        guesses = machine.guesses(data.floats(part.pictures[chosen]))
        right += int(np.sum(guesses == part.labels[chosen]))
    return int(machine.total(np.array([right]))[0]) / len(part)


class Stop:
    """An agreement on when to stop: SIGTERM or SIGINT to any rank ends all ranks after the same step."""

    NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._received = 0
        machine.total(np.zeros(1, np.int64))  # until all are here there is nothing to save, and they just end
        for number in self.NUMBERS:
            signal.signal(number, self._receive)

    def agreed(self) -> int:
        """The signal to stop for, or 0; the same on every rank. Every rank calls it once a step."""
        votes = self._machine.total(np.array([self._received == number for number in self.NUMBERS], np.int64))
        return next((int(number) for number, count in zip(self.NUMBERS, votes, strict=True) if count), 0)

    def close(self) -> int:
        """Vote for the last time, and stop listening: what follows may be ended like any program."""
        number = self.agreed()
        for one in self.NUMBERS:
            signal.signal(one, signal.SIG_DFL)
        return number

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received = number


def from_first(machine: Machine, content: bytes) -> bytes:
    """Rank 0's bytes, on every rank. All that frameworks have in common is a sum: the other ranks add nothing."""
    first = machine.rank == 0
    length = int(machine.total(np.array([len(content) if first else 0]))[0])
    numbers: Whole = np.zeros(-(-length // 8), np.int64)
    if first:
        numbers.view(np.uint8)[:length] = np.frombuffer(content, np.uint8)
    parts = [machine.total(numbers[at : at + _PART]) for at in range(0, len(numbers), _PART)]
    return np.concatenate([np.zeros(0, np.int64), *parts]).view(np.uint8)[:length].tobytes()


def _same_everywhere(machine: Machine, digest: str, otherwise: str) -> None:
    """See that all ranks have one digest: its number times the ranks is then the sum over them.

    Raises:
        TrainerError: They have not.
    """
    number = int(digest[:12], 16)
    if int(machine.total(np.array([number]))[0]) != number * machine.world_size:
        raise TrainerError(otherwise)


def _identity(o: Options, workload: str, machine: Machine, data: Pictures) -> dict[str, Any]:
    """What a checkpoint must share with the run that goes on from it."""
    shapes = sorted((name, list(values.shape)) for name, values in machine.state().weights.items())
    named = "a folder" if Path(data.name).is_absolute() or "/" in data.name else data.name
    return {
        "the workload": workload,
        "the data set": f"{named} (sha256 {data.digest[:12]})",
        "the network": hashlib.sha256(repr(shapes).encode()).hexdigest()[:12],
        "--batch-size": o.batch_size,
        "--seed": o.seed,
        "--lr": o.lr,
        "--schedule": o.schedule if o.schedule == "constant" else f"{o.schedule} over {o.steps} steps",
    }


def _resume(
    o: Options, machine: Machine, identity: dict[str, Any], log: Report
) -> tuple[int, dict[str, float], str | None]:
    """Take over the checkpoint to go on from, which rank 0 finds and reads: steps done, history, and its path."""
    packed = b""
    if machine.rank == 0:
        folder = o.out / "checkpoints"
        found: tuple[Path, checkpoint.State] | None = None
        if o.resume == "auto":
            found = checkpoint.newest(folder, log.say)
        elif o.resume != "none":
            found = Path(o.resume), checkpoint.named(Path(o.resume))
        if found:
            checkpoint.same_run(*found, identity)
            if found[1]["step"] > o.steps:
                at = found[1]["step"]
                raise BadInputError(f"--steps {o.steps}: {found[0]} is of step {at} already; ask for more steps")
            packed = arrays.packed({**found[1], "path": str(found[0])})
        checkpoint.tidy(folder, found[1]["step"] if found else -1, log.say)
    packed = from_first(machine, packed) if machine.world_size > 1 else packed
    if not packed:
        return 0, {}, None
    state = arrays.read(packed)
    machine.restore(State(state["weights"], state.get("optimizer", {})))
    return state["step"], state["history"], state["path"]


def early(argv: Sequence[str], what: str) -> None:
    """Check a command line, and that its set is there; for a script, before its slow imports."""

    def parse(words: Sequence[str]) -> None:
        o = options.read(words, options.parser(what), Options)
        sets.look(o.data, o.cache)
        temporary_files()

    check_early(parse, argv)


def main(
    run: Callable[[Chosen], int],
    argv: Sequence[str],
    what: str = "",
    kind: Callable[..., Chosen] = Options,  # type: ignore[assignment]
    more: Callable[[Parser], None] = lambda parser: None,  # noqa: ARG005
) -> int:
    """Run a trainer; expected failures become one line and an exit code.

    Args:
        run: The trainer.
        argv: Its command line.
        what: One sentence for `--help`.
        kind: The class of its options.
        more: Adds its own options to those that all have.
    """
    made = options.parser(what)
    more(made)
    return ended(lambda: run(options.read(argv, made, kind)))


def load(o: Options) -> Pictures:
    """The data set of the options."""
    return sets.load(o.data, o.cache)
