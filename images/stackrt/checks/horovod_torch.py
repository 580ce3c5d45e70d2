"""What the checks of Horovod run in each rank of a PyTorch image."""

import os

import horovod.torch as hvd
import torch

from stackrt.checks.torch_ranks import LEARNING_RATE, ROWS_A_RANK, WIDTH, backward, error, network


def collectives() -> dict[str, list[float]]:
    """What this rank receives when each gives 1, 2, 3 times its rank + 1; see `horovod.judge_collectives`."""
    hvd.init()
    rank, size = hvd.rank(), hvd.size()
    mine = torch.tensor([1.0, 2.0, 3.0]) * (rank + 1)
    received, _ = hvd.alltoall(torch.full((size,), rank + 1.0), splits=torch.ones(size, dtype=torch.int32))
    found = {
        "sum": hvd.allreduce(mine, op=hvd.Sum, name="sum"),
        "mean": hvd.allreduce(mine, op=hvd.Average, name="mean"),
        "allgather": hvd.allgather(mine[:1], name="allgather"),
        "broadcast": hvd.broadcast(mine, root_rank=size - 1, name="broadcast"),
        "alltoall": received,
    }
    hvd.shutdown()
    return {name: tensor.tolist() for name, tensor in found.items()}


def optimizer() -> dict[str, float]:
    """A step of DistributedOptimizer on the ranks' parts, against a plain one on the whole."""
    hvd.init()
    rank, size = hvd.rank(), hvd.size()
    cuda = os.environ["STACK_DEVICE"] == "cuda"
    device = torch.device("cuda", hvd.local_rank()) if cuda else torch.device("cpu")
    torch.manual_seed(0)
    inputs, targets = torch.randn(ROWS_A_RANK * size, WIDTH).to(device), torch.randn(ROWS_A_RANK * size, 1).to(device)
    whole, model = network(device), network(device, seed=2 + rank)
    plain = torch.optim.SGD(whole.parameters(), lr=LEARNING_RATE)
    shared = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=LEARNING_RATE), named_parameters=model.named_parameters()
    )
    # Every rank begins with other weights, so that broadcasting them is tested as well.
    model.load_state_dict(whole.state_dict() if rank == 0 else model.state_dict())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    for net, steps, part in ((whole, plain, slice(None)), (model, shared, slice(rank, None, size))):
        backward(net, inputs[part], targets[part])
        steps.step()
    found = error(model.parameters(), whole.parameters())
    hvd.shutdown()
    return {"horovod_error": found}
