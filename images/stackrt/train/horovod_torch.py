"""Train a small network on handwritten digits with Horovod and PyTorch.

    python -m stackrt.train.horovod_torch                                     one process
    stackctl run horovod-torch --nodes 2 --procs 2 --on compose               two nodes of two ranks

Each rank computes its part of a step's pictures; Horovod averages the gradients, so any number of ranks trains alike.
"""

import sys

import horovod.torch as hvd
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from horovod.common.exceptions import HorovodInternalError
from torch import nn

from stackrt.train import digits, report
from stackrt.train.digits import Options
from stackrt.train.errors import PeersGoneError, TrainerError


def network(lr: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Two convolutions and a dense layer, with weights from the seed set before."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    return model, torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def make_deterministic(seed: int) -> None:
    """The same seed gives the same weights, bit for bit, for a number of ranks."""
    torch.set_num_threads(digits.THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)


def run(o: Options) -> None:
    """Train, and leave weights and result.

    Raises:
        TrainerError: The ranks end with different weights.
    """
    hvd.init()
    rank, world_size = hvd.rank(), hvd.size()
    make_deterministic(o.seed)
    pictures, labels, test_pictures, test_labels = (torch.from_numpy(part) for part in digits.load())
    model, optimizer = network(o.lr)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    log = digits.Report(o, "horovod-torch", rank, world_size)

    for step in range(o.steps):
        chosen = torch.from_numpy(digits.batch(o, step, rank, world_size, len(labels)))
        loss = F.cross_entropy(model(pictures[chosen].movedim(3, 1)), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if log.due(step + 1):
            log.add(step + 1, float(hvd.allreduce(loss.detach(), name="loss")))

    weights = {name: values.numpy() for name, values in model.state_dict().items()}
    if len(set(hvd.allgather_object(report.arrays_sha256(weights)))) > 1:
        raise TrainerError("the ranks end with different weights; the machine or its network computes wrongly")
    with torch.no_grad():
        guesses = model(test_pictures.movedim(3, 1)).argmax(1)
    log.finish(weights, float(np.mean((guesses == test_labels).numpy())))
    hvd.shutdown()


def guarded(o: Options) -> None:
    """Run; a rank that is left alone says so.

    Raises:
        PeersGoneError: Another rank ended during a collective.
    """
    try:
        run(o)
    except HorovodInternalError as error:
        raise PeersGoneError(f"another rank is gone: {str(error).splitlines()[0]}") from None


if __name__ == "__main__":
    sys.exit(digits.main(guarded, sys.argv[1:], "Train a small network on digits with Horovod and PyTorch."))
