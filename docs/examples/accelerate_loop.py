"""Hugging Face accelerate: it reads the launcher's variables, as under its own `accelerate launch`.

stackctl run --procs 2 -- python accelerate_loop.py
"""

import task
import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy

accelerator = Accelerator(cpu=not torch.cuda.is_available())
model, optimizer = task.model(), None
optimizer = torch.optim.SGD(model.parameters(), lr=task.LEARNING_RATE)
model, optimizer = accelerator.prepare(model, optimizer)
for step in range(task.STEPS):
    rows, classes = (
        part.to(accelerator.device) for part in task.batch(step, accelerator.process_index, accelerator.num_processes)
    )
    optimizer.zero_grad()
    accelerator.backward(cross_entropy(model(rows), classes))
    optimizer.step()
if accelerator.is_main_process:
    task.tell(accelerator.unwrap_model(model))
accelerator.end_training()
