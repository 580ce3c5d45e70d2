"""Runs in the image on two ranks: what Horovod promises PyTorch, checked to the last bit. Prints `ok NAME` a check."""

from typing import Any

import horovod.torch as hvd
import torch

Tensor = torch.Tensor


def whole(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def allreduce() -> None:
    mine = whole(1, 2, 3) * (hvd.rank() + 1)
    for op, expected in (
        (hvd.Sum, whole(3, 6, 9)), (hvd.Average, whole(3, 6, 9) / 2), (hvd.Min, whole(1, 2, 3)),
        (hvd.Max, whole(2, 4, 6)), (hvd.Product, whole(2, 8, 18)),
    ):  # fmt: skip
        assert torch.equal(hvd.allreduce(mine, op=op), expected), op
    assert torch.equal(hvd.allreduce(mine.to(torch.int64), op=hvd.Sum), torch.tensor([3, 6, 9]))
    first, second = hvd.grouped_allreduce([mine, mine * 10], op=hvd.Sum)
    assert torch.equal(first * 10, second)
    assert torch.equal(second, whole(30, 60, 90))


def allgather() -> None:
    mine = torch.full((hvd.rank() + 1, 2), float(hvd.rank()))
    assert torch.equal(hvd.allgather(mine), whole(0, 0, 1, 1, 1, 1).view(3, 2))
    assert hvd.allgather_object({"rank": hvd.rank()}) == [{"rank": 0}, {"rank": 1}]


def broadcast() -> None:
    for root in (0, 1):
        assert torch.equal(hvd.broadcast(whole(hvd.rank(), 7), root_rank=root), whole(root, 7))
    model = torch.nn.Linear(3, 1)
    torch.nn.init.constant_(model.weight, hvd.rank() + 1)
    hvd.broadcast_parameters(model.state_dict(), root_rank=1)
    assert torch.equal(model.weight.detach(), whole(2, 2, 2).view(1, 3))


def alltoall() -> None:
    mine = whole(0, 1, 2) + 10 * hvd.rank()
    received, counts = hvd.alltoall(mine, splits=torch.tensor([1, 2], dtype=torch.int32))
    assert torch.equal(received, whole(0, 10) if hvd.rank() == 0 else whole(1, 2, 11, 12))
    assert counts.tolist() == ([1, 1] if hvd.rank() == 0 else [2, 2])


def optimizer() -> None:
    for passes in (1, 2):
        weight = torch.nn.Parameter(whole(0, 0))
        opt: Any = torch.optim.SGD([weight], lr=1.0)
        opt = hvd.DistributedOptimizer(opt, named_parameters=[("w", weight)], backward_passes_per_step=passes)
        for part in range(passes):
            # gradients 1 and 2 (part 0), 3 and 4 (part 1) on the two ranks
            (weight * (1 + hvd.rank() + 2 * part)).sum().backward()
        opt.step()
        # The mean over the ranks; over passes the sum, as PyTorch itself accumulates.
        expected = -1.5 if passes == 1 else -(1 + 2 + 3 + 4) / 2
        assert weight.tolist() == [expected, expected], (passes, weight)


def join() -> None:
    for turn in range(3 if hvd.rank() == 0 else 1):
        total = hvd.allreduce(whole(1), name=f"turn{turn}", op=hvd.Sum)
        assert total.tolist() == [2.0 if turn == 0 else 1.0], (turn, total)
    assert hvd.join() == 0, "rank 0 was the last to join"


def process_sets() -> None:
    own = sets[hvd.rank()]
    assert (own.size(), own.rank()) == (1, 0)
    assert not sets[1 - hvd.rank()].included()
    mine = whole(hvd.rank() + 5)
    assert torch.equal(hvd.allreduce(mine, op=hvd.Sum, process_set=own), mine)
    assert torch.equal(hvd.allreduce(mine, op=hvd.Sum), whole(11))
    hvd.barrier()


def elastic_state() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, hvd.rank() + 1)
    state = hvd.elastic.TorchState(model=model, step=hvd.rank())
    state.sync()
    assert (model.weight.item(), state.step) == (1.0, 0), "rank 0's state is everyone's"
    state.step = 5
    state.save()
    torch.nn.init.zeros_(model.weight)
    state.step = 9
    state.restore()
    assert (model.weight.item(), state.step) == (1.0, 5)


sets = [hvd.ProcessSet([0]), hvd.ProcessSet([1])]
hvd.init(process_sets=sets)
assert hvd.size() == 2
assert hvd.gloo_built()
assert not hvd.mpi_built()
# join() is last: it lets ranks count differently, and Horovod names what has no name by counting.
for check in (allreduce, allgather, broadcast, alltoall, optimizer, process_sets, elastic_state, join):
    check()
    print("ok", check.__name__, flush=True)
hvd.shutdown()
