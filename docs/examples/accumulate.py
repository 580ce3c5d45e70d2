"""A batch that does not fit is taken in parts, whose gradients add up: python accumulate.py"""

import task
import torch
from torch.nn.functional import cross_entropy

PARTS = 4

device = "cuda" if torch.cuda.is_available() else "cpu"
model = task.model().to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=task.LEARNING_RATE)
for step in range(task.STEPS):
    optimizer.zero_grad()
    for part in range(PARTS):
        rows, classes = (share.to(device) for share in task.batch(step, part, PARTS))
        # The mean over the batch is the mean of its parts' means: divide, or the learning rate is 4 times as high.
        (cross_entropy(model(rows), classes) / PARTS).backward()
    optimizer.step()
task.tell(model)
