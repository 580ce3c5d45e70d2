"""Reference trainers: each is one script that reads top to bottom, with plain modules beside it."""

import logging

# transformers imports torchao where it is installed, and that speaks of kernels for other GPUs, and of what it has yet
# to mend for this torch: in each rank's log, before the first line of the run.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
