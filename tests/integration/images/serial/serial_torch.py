"""Runs in the image without Horovod: the weights that the same steps give in one plain PyTorch process."""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from stackrt.train import digits
from stackrt.train.horovod_torch import make_deterministic, network

o = digits.parse(sys.argv[1:], "")
make_deterministic(o.seed)
pictures, labels, _, _ = (torch.from_numpy(part) for part in digits.load())
model, optimizer = network(o.lr)
for step in range(o.steps):
    chosen = torch.from_numpy(digits.batch(o, step, 0, 1, len(labels)))
    optimizer.zero_grad()
    F.cross_entropy(model(pictures[chosen].movedim(3, 1)), labels[chosen]).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
np.savez(Path(o.out) / "serial.npz", **{name: values.numpy() for name, values in model.state_dict().items()})
