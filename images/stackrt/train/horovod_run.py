"""What the trainers with Horovod share: their options, and how they start, end, and go on when a rank is lost."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

from stackrt.pictures import trainer
from stackrt.pictures.options import Options
from stackrt.train.command_line import Parser, same_ranks
from stackrt.train.errors import BadInputError, PeersGoneError

if TYPE_CHECKING:
    from horovod.common.elastic import ObjectState

Make = Callable[["HorovodOptions", tuple[int, int, int], int], trainer.Machine]
"""A trainer's machine, of its options, a picture's shape and the number of classes."""


@dataclass(frozen=True)
class HorovodOptions(Options):
    """Those of all trainers of pictures, and Horovod's."""

    compression: str
    accumulate: int
    adasum: bool
    timeline: bool


def add_options(parser: Parser) -> None:
    """Horovod's options."""
    group = parser.add_argument_group("Horovod")
    group.add_argument(
        "--compression", choices=("none", "fp16"), default="none", help="of the gradients that the ranks exchange"
    )
    group.add_argument(
        "--accumulate", type=int, default=1, metavar="N",
        help="exchange gradients once for N passes, each over a part of the rank's pictures; default: 1",
    )  # fmt: skip
    group.add_argument("--adasum", action="store_true", help="add up gradients by Adasum; wants MPI")
    group.add_argument("--timeline", action="store_true", help="write what Horovod does to timeline.json")


def check(o: HorovodOptions, world_size: int) -> None:
    """See that each pass gets as many pictures.

    Raises:
        BadInputError: It does not.
    """
    if o.accumulate < 1:
        raise BadInputError(f"--accumulate {o.accumulate}: must be at least 1")
    passes = world_size * o.accumulate
    if o.batch_size % passes:
        raise BadInputError(
            f"--batch-size {o.batch_size}: {world_size} ranks with --accumulate {o.accumulate} cannot share it evenly; "
            f"choose a multiple of {passes}"
        )


def is_elastic(env: Mapping[str, str]) -> bool:
    """Whether `horovodrun --min-np` has started this rank, and goes on with those that are left."""
    return env.get("HOROVOD_ELASTIC") == "1"


def run(hvd: ModuleType, workload: str, make: Make, lost: tuple[type[Exception], ...], o: HorovodOptions) -> int:
    """Train; return the exit code.

    Under Horovod's elastic runner the ranks that are left go on from the newest checkpoint. Under any other launcher a
    rank that is left alone says so and ends, and the next attempt does the same.

    Args:
        hvd: Horovod's module for the framework.
        workload: Name for `result.json`.
        make: Makes this rank's machine; called anew when there are other ranks.
        lost: How the framework says that a collective has failed.
        o: The options.

    Raises:
        BadInputError: Something cannot be as the options say.
        PeersGoneError: Another rank ended during a collective.
    """
    check(o, 1)
    data = trainer.load(o)
    if o.timeline:
        o.out.mkdir(parents=True, exist_ok=True)
        os.environ["HOROVOD_TIMELINE"] = str(o.out / "timeline.json")  # rank 0 writes it
    hvd.init()
    same_ranks(hvd.size(), "Horovod")
    if o.adasum and not hvd.mpi_enabled():
        raise BadInputError("--adasum: wants ranks that mpirun has started, in an image whose Horovod has MPI")

    def attempt(o: HorovodOptions) -> int:
        check(o, hvd.size())
        return trainer.train(o, workload, make(o, data.shape, len(data.classes)), data)

    if is_elastic(os.environ):
        code = _elastic(hvd, attempt, lost, o)
    else:
        try:
            code = attempt(o)
        except lost as error:
            raise PeersGoneError(f"another rank is gone: {str(error).splitlines()[0]}") from None
    hvd.shutdown()
    return code


def _elastic(
    hvd: ModuleType, attempt: Callable[[HorovodOptions], int], lost: tuple[type[Exception], ...], o: HorovodOptions
) -> int:
    from horovod.common.elastic import ObjectState
    from horovod.common.exceptions import HorovodInternalError

    @hvd.elastic.run  # type: ignore[untyped-decorator]
    def again(state: "ObjectState") -> int:
        # What is kept is in checkpoints, which all ranks of a container see; Horovod's state only tells the first time.
        first, state.first = state.first, False
        state.save()
        try:
            return attempt(o if first else replace(o, resume="auto"))
        except lost as error:
            raise HorovodInternalError(error) from None

    code: int = again(ObjectState(bcast_object=hvd.broadcast_object, get_rank=hvd.rank, first=True))
    return code
