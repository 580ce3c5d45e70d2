"""Lightning Fabric: told of the launcher's world, it starts no processes of its own.

pip install --no-deps -r requirements.txt     # it is not in the images
stackctl run --procs 2 -- python fabric_loop.py
"""

import os

import task
import torch
from lightning_fabric import Fabric
from torch.nn.functional import cross_entropy

local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
nodes = int(os.environ.get("WORLD_SIZE", "1")) // local_ranks
fabric = Fabric(accelerator="auto", devices=local_ranks, num_nodes=nodes, strategy="ddp")
fabric.launch()
model = task.model()
model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=task.LEARNING_RATE))
for step in range(task.STEPS):
    rows, classes = (part.to(fabric.device) for part in task.batch(step, fabric.global_rank, fabric.world_size))
    optimizer.zero_grad()
    fabric.backward(cross_entropy(model(rows), classes))
    optimizer.step()
if fabric.is_global_zero:
    task.tell(model.module)
