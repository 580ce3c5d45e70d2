"""The first process of a node's own PID and mount namespaces: containerd and the kubelet, as on a machine of their own.

Killed, it takes with it everything that runs on the node, as a power failure does. Its argument is the node's
folder. Only the standard library: this file is run by its path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def main() -> None:
    folder = Path(sys.argv[1])
    plan = json.loads((folder / "node.json").read_text())
    if plan["layers"]:
        mount("--bind", plan["layers"], str(folder / "layers"))
    for place in ("/var/lib", "/var/log"):  # the node's own, so that every path may stay as it is by default
        mount("--bind", str(folder / place[1:].replace("/", "-")), place)
    mount("-t", "tmpfs", "tmpfs", "/run")
    socket = folder / "containerd.sock"
    socket.unlink(missing_ok=True)
    containerd = subprocess.Popen(plan["containerd"], stdin=subprocess.DEVNULL)
    while not socket.is_socket():
        time.sleep(0.02)
    patience = time.monotonic() + 15
    kubelet = subprocess.Popen(plan["kubelet"], stdin=subprocess.DEVNULL)
    while (ended := os.waitpid(-1, 0)[0]) != containerd.pid:  # another one than the two is an orphan
        if ended == kubelet.pid:
            if time.monotonic() > patience:
                break
            time.sleep(0.1)  # on a busy machine containerd may listen before it can answer, and a kubelet gives up
            kubelet = subprocess.Popen(plan["kubelet"], stdin=subprocess.DEVNULL)
    sys.exit("containerd or the kubelet ended")


if __name__ == "__main__":
    main()
