"""DataParallel: one process, a thread for each GPU of one machine: python data_parallel.py

What it costs: each step copies the whole model to every GPU and gathers the outputs on the first one, while Python's
lock lets one thread prepare work at a time. PyTorch advises against it, and for ddp.py, even on one machine. Without
two GPUs the module is called as it is.
"""

import task
import torch
from torch.nn.functional import cross_entropy

device = "cuda" if torch.cuda.is_available() else "cpu"
model = torch.nn.DataParallel(task.model().to(device))
optimizer = torch.optim.SGD(model.parameters(), lr=task.LEARNING_RATE)
for step in range(task.STEPS):
    rows, classes = (part.to(device) for part in task.batch(step))
    optimizer.zero_grad()
    cross_entropy(model(rows), classes).backward()
    optimizer.step()
task.tell(model.module)
