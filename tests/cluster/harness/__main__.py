"""Commands to build the cluster's programs, and to have a cluster at hand without a test.

python -m tests.cluster.harness build            what is not built yet
python -m tests.cluster.harness up [IMAGE…]      start one, with images of the Docker engine; Ctrl-C ends it
"""

from __future__ import annotations

import shutil
import signal
import sys

from tests.cluster.harness import programs
from tests.cluster.harness.cluster import GIVEN, OwnCluster


def up(images: list[str]) -> None:
    cluster = OwnCluster(images)
    try:
        print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cluster.stop()


def refuse(reason: str) -> None:
    if reason:
        sys.exit(f"error: {reason}")


def main(words: list[str]) -> None:
    match words:
        case ["build"] if GIVEN:
            pass
        case ["build"]:
            refuse(programs.lacks_of_machine())
            if programs.unbuilt() and shutil.which("go") is None:
                refuse("Go is not installed: it builds the cluster's programs")
            programs.build()
        case ["up", *images]:
            refuse(programs.lacks())
            up(images)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
