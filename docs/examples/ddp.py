"""DistributedDataParallel, a process a GPU. Any launcher: they all set RANK, WORLD_SIZE and MASTER_ADDR.

stackctl run --nodes 2 --procs 2 -- python ddp.py
torchrun --nproc-per-node 2 ddp.py
"""

import os

import task
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    """Join the ranks, train, and leave them: last, when the model has gone, which holds what the ranks talk over."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")  # env://: it reads the launcher's variables
    train(device)
    dist.destroy_process_group()


def train(device: torch.device) -> None:
    """Train as one of the ranks."""
    model = DistributedDataParallel(task.model().to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=task.LEARNING_RATE)
    for step in range(task.STEPS):
        rows, classes = (part.to(device) for part in task.batch(step, dist.get_rank(), dist.get_world_size()))
        optimizer.zero_grad()
        cross_entropy(model(rows), classes).backward()  # averages the gradients of all ranks meanwhile
        optimizer.step()
    if dist.get_rank() == 0:
        task.tell(model.module)


if __name__ == "__main__":
    main()
