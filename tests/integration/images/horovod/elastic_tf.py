"""Runs in the image: trains on Horovod's elastic state, and loses rank 1 at the sixth step, once."""

import os
import signal
from pathlib import Path

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

OUT = Path(os.environ["STACK_OUT"])
SAVED, LOST = OUT / "state.npz", OUT / "lost"
STEPS = 8

hvd.init()
weight, first = tf.Variable(0.0), 0
if SAVED.exists():
    saved = np.load(SAVED)
    weight.assign(saved["weight"])
    first = int(saved["step"])


@hvd.elastic.run  # type: ignore[untyped-decorator]
def train(state: hvd.elastic.TensorFlowState) -> None:
    print(f"from step {state.step} on {hvd.size()}", flush=True)
    while state.step < STEPS:
        if state.step == 5 and hvd.rank() == 1 and not LOST.exists():
            LOST.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with hvd.DistributedGradientTape(tf.GradientTape()) as tape:
            loss = weight * 1.0
        weight.assign_sub(tape.gradient(loss, [weight])[0])
        state.step += 1
        if state.step % 2 == 0:
            state.commit()
            if hvd.rank() == 0:
                np.savez(OUT / "new.npz", weight=weight.numpy(), step=state.step)
                (OUT / "new.npz").replace(SAVED)


train(hvd.elastic.TensorFlowState(variables=[weight], step=first))
# Each step takes one off, whatever the number of ranks: none is lost, none counts twice.
assert weight.numpy() == -STEPS, weight
print("ok", flush=True)
