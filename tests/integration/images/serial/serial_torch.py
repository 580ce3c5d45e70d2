"""Runs in the image without Horovod: the weights that the same steps give in one plain PyTorch process."""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from stackrt.pictures import batches, options, trainer
from stackrt.train.horovod_torch import make_deterministic, network

o = options.read(sys.argv[1:], options.parser(""), options.Options)
make_deterministic(o.seed)
data = trainer.load(o)
pictures, labels = torch.from_numpy(data.floats(data.train.pictures)), torch.from_numpy(data.train.labels)
model, optimizer = network(o.lr, data.shape, len(data.classes))
for step in range(o.steps):
    chosen = torch.from_numpy(batches.batch(o, step, 0, 1, len(labels)))
    optimizer.zero_grad()
    F.cross_entropy(model(pictures[chosen].movedim(3, 1)), labels[chosen]).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
np.savez(Path(o.out) / "serial.npz", **{name: values.numpy() for name, values in model.state_dict().items()})
