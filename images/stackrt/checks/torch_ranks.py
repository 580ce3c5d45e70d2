"""What the checks of PyTorch run in each rank: data-parallel training, against the same step in one process."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

ROWS_A_RANK, WIDTH, LEARNING_RATE = 8, 32, 0.1


def train(kinds: Sequence[str]) -> dict[str, float]:
    """Train in each of these ways, `ddp` and `fsdp`, and compare on this rank.

    Returns:
        `NAME_error` of each way, and what else it measured.
    """
    cuda = os.environ["STACK_DEVICE"] == "cuda"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    # What is counted travels by gloo, gradients on GPUs by NCCL.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    torch.manual_seed(0)
    rows = ROWS_A_RANK * dist.get_world_size()
    inputs, targets = torch.randn(rows, WIDTH).to(device), torch.randn(rows, 1).to(device)
    figures: dict[str, float] = {}
    for kind in kinds:
        figures |= {"ddp": ddp, "fsdp": fsdp}[kind](device, inputs, targets)
    # No rank goes while another still talks to it.
    dist.barrier()
    dist.destroy_process_group()
    return figures


def network(device: torch.device, seed: int = 1) -> nn.Sequential:
    """Three layers; one seed gives every rank the same weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)).to(device)


def backward(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    """The gradients of the mean squared error."""
    F.mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]


def gradients(model: nn.Module) -> list[Tensor]:
    """The gradients of all parameters."""
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def error(found: Iterable[Tensor], wanted: Iterable[Tensor]) -> float:
    """The largest difference as a part of the largest value; not a number if any value is none."""
    a, b = (torch.cat([tensor.detach().double().flatten() for tensor in tensors]) for tensors in (found, wanted))
    return float((a - b).abs().max() / b.abs().max())


def ddp(device: torch.device, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """DistributedDataParallel: the mean of the ranks' gradients is the gradient of the whole."""
    rank, world = dist.get_rank(), dist.get_world_size()
    whole, model = network(device), nn.parallel.DistributedDataParallel(network(device))
    backward(whole, inputs, targets)
    backward(model, inputs[rank::world], targets[rank::world])
    return {"ddp_error": error(gradients(model), gradients(whole))}


def fsdp(device: torch.device, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """FSDP: a step gives the weights of one process, and a sharded checkpoint gives every shard back."""
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    rank, world = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh(device.type, (world,))
    whole, model, other = network(device), network(device), network(device, seed=2)
    for net in (model, other):
        fully_shard(net, mesh=mesh)
    for net, part in ((whole, slice(None)), (model, slice(rank, None, world))):
        optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
        backward(net, inputs[part], targets[part])
        optimizer.step()
    full: list[Any] = list(model.parameters())
    found = error((parameter.full_tensor() for parameter in full), whole.parameters())

    folder, saved, loaded = Path(os.environ["STACK_OUT"]) / "sharded", model.state_dict(), other.state_dict()
    save(saved, checkpoint_id=folder)
    load(loaded, checkpoint_id=folder)
    lost = sum(not torch.equal(loaded[name].to_local(), saved[name].to_local()) for name in saved)
    return {"fsdp_error": found, "shards_lost": float(lost)}
