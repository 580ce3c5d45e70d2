"""The ranks of a run: joining them, averaging gradients over them, failing together, stopping together."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from stackrt.train.errors import ERRORS, BadInputError, TrainerError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place among the others.

    Attributes:
        gradients: The group that DDP sums gradients over, nccl or gloo. Decisions use the default group, which is
            always gloo: they need no GPU, and neither kind waits for the other.
    """

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    gradients: dist.ProcessGroup

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def together(self) -> AbstractContextManager[None]:
        """Run a block that may fail on one rank; when it does, raise that failure on every rank.

        Without this the others would wait in their next collective for a rank that has gone.

        Raises:
            TrainerError: The failure of the lowest rank that had one, naming the rank if it is not 0.
        """
        return together(self.rank, self.world_size)

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in rank order, on every rank."""
        return gather(value, self.world_size)

    def from_first(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def state_from_first(self, state: Any) -> Any:
        """Rank 0's nested state (dicts, lists, tuples, tensors, plain values), on every rank.

        Tensors travel as tensors, one by one: pickling gigabytes of them would hold several copies.
        """
        tensors: list[torch.Tensor] = []
        outline = self.from_first(_take_tensors(state, tensors) if self.first else None)
        return _put_tensors(outline, iter(tensors) if self.first else None, self)

    def mean(self, total: float, count: int) -> float:
        """The mean over all ranks, in float64, given each rank's sum and count."""
        sums = torch.tensor([total, count], dtype=torch.float64)
        dist.all_reduce(sums)
        return float(sums[0] / sums[1])


@contextmanager
def together(rank: int, world_size: int) -> Iterator[None]:
    """See `Ranks.together`."""
    failure: tuple[int, str] | None = None
    try:
        yield
    except TrainerError as error:
        failure = (error.exit_code, f"rank {rank}: {error}" if rank else str(error))
    for code, message in filter(None, gather(failure, world_size)):
        raise ERRORS[code](message)


def gather(value: T, world_size: int) -> list[T]:
    """See `Ranks.gather`."""
    values: list[T] = [value] * world_size
    if world_size > 1:
        dist.all_gather_object(values, value)
    return values


def lost_peers(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank is gone; gloo says so in a plain RuntimeError."""
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "closed by peer" in str(error)


def pick_device(wanted: str, local_rank: int) -> torch.device:
    """The device for this rank: `cuda` never falls back to the CPU in silence.

    Raises:
        BadInputError: An unknown word, no GPU, or fewer GPUs than local ranks.
    """
    if wanted not in ("cuda", "cpu", "auto"):
        raise BadInputError(f"STACK_DEVICE={wanted}: must be cuda, cpu or auto")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise BadInputError(
            "STACK_DEVICE=cuda, but torch sees no GPU; check the driver and the image, or set STACK_DEVICE=cpu"
        )
    if local_rank >= torch.cuda.device_count():
        raise BadInputError(
            f"LOCAL_RANK {local_rank} has no GPU: this node shows {torch.cuda.device_count()}; start fewer ranks here"
        )
    return torch.device("cuda", local_rank)


def join() -> Ranks:
    """Join the process group that the environment describes; alone without one.

    Raises:
        BadInputError: An incomplete environment, or a device that is not there.
    """
    rank, world_size, local_rank = (_whole(name, default) for name, default in _PLACE)
    if not 0 <= rank < world_size:
        raise BadInputError(f"RANK={rank} is outside WORLD_SIZE={world_size}")
    if world_size == 1:
        # One process needs no port, and an in-memory store opens none.
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    else:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing:
            raise BadInputError(
                f"WORLD_SIZE={world_size} needs {' and '.join(missing)}; start the ranks with a launcher"
            )
        dist.init_process_group("gloo", rank=rank, world_size=world_size)
    device = torch.device("cpu")
    with together(rank, world_size):
        device = pick_device(os.environ.get("STACK_DEVICE") or "auto", local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    gradients = dist.new_group(backend="nccl" if device.type == "cuda" else "gloo")
    return Ranks(rank, local_rank, world_size, device, gradients)


class Averaged:
    """Averages the gradients of a model that each rank holds whole, while its backward pass goes on.

    As DDP does, but always in the same groups: DDP forms them anew after its first pass, so a run that goes on from a
    checkpoint would add up in another order than one that was not broken.

    Args:
        parameters: All that are trained, in the model's order: the last have their gradients first.
        group: The ranks.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], group: dist.ProcessGroup) -> None:
        self._group = group
        self._groups = _grouped(list(parameters)[::-1])
        self._place: dict[torch.Tensor, int] = {
            parameter: number for number, held in enumerate(self._groups) for parameter in held
        }
        self._missing = [len(held) for held in self._groups]
        self._sent: list[tuple[torch.Tensor, dist.Work]] = []
        self.wanted = True  # whether the next backward pass is the last of its step; without, gradients only add up
        for parameter in self._place:
            parameter.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """After the last backward pass of a step: from here on the gradients are those of all ranks."""
        while len(self._sent) < len(self._groups):
            self._send()  # what had none on this rank may have had one on another
        for held, (summed, work) in zip(self._groups, self._sent, strict=True):
            work.wait()
            pieces = torch.split(summed, [parameter.numel() for parameter in held])
            for parameter, piece in zip(held, pieces, strict=True):
                parameter.grad = piece.view_as(parameter)
        self._sent = []
        self._missing = [len(held) for held in self._groups]

    def _arrived(self, parameter: torch.Tensor) -> None:
        if self.wanted:
            self._missing[self._place[parameter]] -= 1
            while len(self._sent) < len(self._groups) and not self._missing[len(self._sent)]:
                self._send()

    @torch.no_grad()
    def _send(self) -> None:
        """Begin to sum the next group: all ranks in one order, whichever gradients come first."""
        held = self._groups[len(self._sent)]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in held]
        summed = torch.cat([gradient.flatten() for gradient in gradients])
        for parameter in held:
            parameter.grad = None  # it is in the sum
        summed /= self._group.size()
        work = dist.all_reduce(summed, group=self._group, async_op=True)
        assert work is not None  # noqa: S101 - this rank is in the group
        self._sent.append((summed, work))


def _grouped(parameters: list[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Groups of DDP's size: large ones cost fewer messages, and a small first one has them begin soon."""
    groups: list[list[torch.nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        if room <= 0:
            room = _FIRST_BYTES if not groups else _GROUP_BYTES
            groups.append([])
        groups[-1].append(parameter)
        room -= parameter.numel() * parameter.element_size()
    return groups


_FIRST_BYTES, _GROUP_BYTES = 1 << 20, 25 << 20


class Stop:
    """An agreement on when to stop: a signal to any rank ends all ranks after the same step.

    Each step posts a vote (the number of the signal received, or 0) and reads the vote of the step before, so the
    exchange hides behind a step's work and every rank reads the same answer.
    """

    def __init__(self) -> None:
        self._received = 0
        self._vote = torch.zeros(1, dtype=torch.int32)
        self._work: dist.Work | None = None

    def listen(self) -> None:
        """From here on SIGTERM and SIGINT are votes; until here there is nothing to save and they just end the rank."""
        dist.barrier()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def agreed(self) -> int:
        """The signal to stop for, or 0; the same on every rank. Call once a step."""
        decision = self._decision()
        if not decision:
            self._vote = torch.tensor([self._received], dtype=torch.int32)
            self._work = dist.all_reduce(self._vote, op=dist.ReduceOp.MAX, async_op=True)
        return decision

    def close(self) -> int:
        """Read the last vote and stop listening: what follows the last checkpoint may be ended like any program."""
        decision = self._decision()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        return decision

    def _decision(self) -> int:
        if self._work is None:
            return 0
        self._work.wait()
        self._work = None
        return int(self._vote)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received = number


_PLACE = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))


def _whole(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise BadInputError(f"{name}={text}: must be a whole number")
    return int(text)


@dataclass(frozen=True)
class _Slot:
    """Where a tensor belongs in an outline."""

    shape: torch.Size
    dtype: torch.dtype


def _take_tensors(state: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(state, torch.Tensor):
        tensors.append(state)
        return _Slot(state.shape, state.dtype)
    if isinstance(state, dict):
        return {key: _take_tensors(value, tensors) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_take_tensors(value, tensors) for value in state)
    return state


def _put_tensors(outline: Any, tensors: Iterator[torch.Tensor] | None, ranks: Ranks) -> Any:
    if isinstance(outline, _Slot):
        tensor = next(tensors) if tensors else torch.empty(outline.shape, dtype=outline.dtype)
        dist.broadcast(tensor, src=0)
        return tensor
    if isinstance(outline, dict):
        return {key: _put_tensors(value, tensors, ranks) for key, value in outline.items()}
    if isinstance(outline, (list, tuple)):
        return type(outline)(_put_tensors(value, tensors, ranks) for value in outline)
    return outline
