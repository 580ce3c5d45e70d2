"""Train a small network on pictures with Horovod and PyTorch: handwritten digits by default.

    python -m stackrt.train.horovod_torch                                     one process
    stackctl run horovod-torch --nodes 2 --procs 2 --on compose               two nodes of two ranks

Each rank computes its part of a step's pictures; Horovod averages the gradients, so any number of ranks trains alike.
"""

import sys
from functools import partial

import horovod.torch as hvd
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from horovod.common.exceptions import HorovodInternalError
from torch import nn

from stackrt.pictures import trainer
from stackrt.pictures.data import Floats
from stackrt.pictures.formats import Whole
from stackrt.pictures.trainer import State
from stackrt.train import horovod_run
from stackrt.train.horovod_run import HorovodOptions


def network(lr: float, shape: tuple[int, int, int], classes: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Two convolutions and a dense layer, with weights from the seed set before; more of it for larger pictures."""
    height, width, channels = shape
    large = min(height, width) >= 16
    factor = 4 if large else 2
    flat = 32 * (height // factor) * (width // factor)
    top = [nn.Linear(flat, 128), nn.ReLU(), nn.Linear(128, classes)] if large else [nn.Linear(flat, classes)]
    model = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), *([nn.MaxPool2d(2)] if large else []), nn.Flatten(), *top,
    )  # fmt: skip
    return model, torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def make_deterministic(seed: int) -> None:
    """The same seed gives the same weights, bit for bit, for a number of ranks."""
    torch.set_num_threads(trainer.THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)


class Averaging:
    """This rank's network under Horovod, for the trainer."""

    device = "cpu"

    def __init__(self, o: HorovodOptions, shape: tuple[int, int, int], classes: int) -> None:
        self.rank: int = hvd.rank()
        self.world_size: int = hvd.size()
        make_deterministic(o.seed)
        self._model, optimizer = network(o.lr, shape, classes)
        hvd.broadcast_parameters(self._model.state_dict(), root_rank=0)
        self._passes = o.accumulate
        self._optimizer = hvd.DistributedOptimizer(
            optimizer,
            named_parameters=self._model.named_parameters(),
            compression=getattr(hvd.Compression, o.compression),
            backward_passes_per_step=o.accumulate,
            op=hvd.Adasum if o.adasum else hvd.Average,
        )
        self._last = torch.zeros(())

    def total(self, numbers: Whole) -> Whole:
        """The sum of each number over the ranks."""
        found: Whole = hvd.allreduce(torch.from_numpy(numbers), op=hvd.Sum, name="total").numpy()
        return found

    def step(self, pictures: Floats, labels: Whole, lr: float) -> None:
        """Train on this rank's part of a step."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.zero_grad()
        self._last = torch.zeros(())
        parts = zip(*(torch.from_numpy(of).chunk(self._passes) for of in (pictures, labels)), strict=True)
        for x, y in parts:
            # Horovod adds up the passes of a step, and averages over the ranks.
            loss = F.cross_entropy(self._model(x.movedim(3, 1)), y) / self._passes
            loss.backward()  # type: ignore[no-untyped-call]
            self._last += loss.detach()
        self._optimizer.step()

    def loss(self) -> float:
        """The mean loss of the last step over all ranks."""
        return float(hvd.allreduce(self._last, name="loss"))

    def guesses(self, pictures: Floats) -> Whole:
        """The likeliest label of each picture."""
        with torch.no_grad():
            found: Whole = self._model(torch.from_numpy(pictures).movedim(3, 1)).argmax(1).numpy()
        return found

    def state(self) -> State:
        """What a checkpoint holds."""
        momenta = {
            name: self._optimizer.state[values]["momentum_buffer"].numpy()
            for name, values in self._model.named_parameters()
            if self._optimizer.state.get(values)
        }
        return State({name: values.numpy() for name, values in self._model.state_dict().items()}, momenta)

    def restore(self, state: State) -> None:
        """Take over a checkpoint's."""
        self._model.load_state_dict({name: torch.from_numpy(values) for name, values in state.weights.items()})
        for name, values in self._model.named_parameters():
            if name in state.optimizer:
                self._optimizer.state[values]["momentum_buffer"] = torch.from_numpy(state.optimizer[name])


if __name__ == "__main__":
    run = partial(horovod_run.run, hvd, "horovod-torch", Averaging, (HorovodInternalError,))
    what = "Train a small network on pictures with Horovod and PyTorch."
    sys.exit(trainer.main(run, sys.argv[1:], what, HorovodOptions, horovod_run.add_options))
