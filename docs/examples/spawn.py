"""The same without a launcher, on one machine: mp.spawn starts the processes, env:// is where they meet.

python spawn.py [PROCESSES]

What you do without: other machines, logs by rank, a new attempt after a failure. Under a launcher use ddp.py: each of
its ranks would start processes of its own here.
"""

import os
import socket
import sys

import ddp
import torch
import torch.multiprocessing as mp


def worker(rank: int, ranks: int) -> None:
    """One process: it sets what a launcher would set for it."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    ddp.main()


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    ranks = int(sys.argv[1]) if len(sys.argv) > 1 else torch.cuda.device_count() or 2
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    mp.spawn(worker, args=(ranks,), nprocs=ranks)
