"""Runs in the image: trains on Horovod's elastic state, and loses rank 1 at the sixth step, once."""

import os
import signal
from pathlib import Path

import horovod.torch as hvd
import torch

OUT = Path(os.environ["STACK_OUT"])
SAVED, LOST = OUT / "state.pt", OUT / "lost"
STEPS = 8

hvd.init()
model = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.zeros_(model.weight)
first = 0
if SAVED.exists():
    saved = torch.load(SAVED)
    model.load_state_dict(saved["model"])
    first = saved["step"]
optimizer = hvd.DistributedOptimizer(
    torch.optim.SGD(model.parameters(), lr=1.0), named_parameters=model.named_parameters()
)


@hvd.elastic.run  # type: ignore[untyped-decorator]
def train(state: hvd.elastic.TorchState) -> None:
    print(f"from step {state.step} on {hvd.size()}", flush=True)
    while state.step < STEPS:
        if state.step == 5 and hvd.rank() == 1 and not LOST.exists():
            LOST.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.zero_grad()
        model.weight.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        state.step += 1
        if state.step % 2 == 0:
            state.commit()
            if hvd.rank() == 0:
                torch.save({"model": model.state_dict(), "step": state.step}, OUT / "new.pt")
                (OUT / "new.pt").replace(SAVED)


train(hvd.elastic.TorchState(model=model, optimizer=optimizer, step=first))
# Each step takes one off, whatever the number of ranks: none is lost, none counts twice.
assert model.weight.item() == -STEPS, model.weight
print("ok", flush=True)
