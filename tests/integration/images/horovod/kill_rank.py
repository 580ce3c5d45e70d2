"""Runs in the image, beside a trainer with Horovod: kill -9 of the rank that is named, once there is a checkpoint."""

import os
import signal
import sys
import time
from pathlib import Path


def pids() -> dict[int, int]:
    """Rank -> its process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            env = dict(line.partition(b"=")[::2] for line in (folder / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if b"HOROVOD_RANK" in env and b"-m" in words and words[words.index(b"-m") + 1].startswith(b"stackrt.train."):
            found[int(env[b"HOROVOD_RANK"])] = int(folder.name)
    return found


while not any(Path("/out/checkpoints").glob("step-*.npz")):
    time.sleep(0.1)
os.kill(pids()[int(sys.argv[1])], signal.SIGKILL)
