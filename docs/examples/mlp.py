"""One process, plain PyTorch: python mlp.py"""

import task
import torch
from torch.nn.functional import cross_entropy

device = "cuda" if torch.cuda.is_available() else "cpu"
model = task.model().to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=task.LEARNING_RATE)
for step in range(task.STEPS):
    rows, classes = (part.to(device) for part in task.batch(step))
    optimizer.zero_grad()
    cross_entropy(model(rows), classes).backward()
    optimizer.step()
task.tell(model)
