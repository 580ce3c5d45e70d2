"""Have a server that runs go over to another model, without a request that fails; see --orders of `stackrt.serve`.

    python -m stackrt.serve.order /tmp/next runs/mine/export --name plays

Prints what came of it: 0 once the new model answers, 78 if it is refused, and the old one goes on.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stackrt.serve import orders
from stackrt.train.errors import BadInputError, TrainerError, complain

UNSEEN = 30.0
"""Seconds after which a server that has not looked is taken for none."""


def main(argv: Sequence[str] | None = None) -> int:
    """Order, and wait for the answer; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if len(words) < 2 or words[0].startswith("-"):
        print(__doc__)
        return 0 if words[:1] in (["-h"], ["--help"]) else 2
    try:
        return _ordered(Path(words[0]), words[1:])
    except TrainerError as error:
        return complain(error)


def _ordered(file: Path, words: Sequence[str]) -> int:
    try:
        order = orders.give(file, words)
    except OSError as error:
        raise BadInputError(f"{file}: cannot be written: {error.strerror}") from None
    began = time.monotonic()
    while True:
        found = orders.answered(file, order)
        if found and found.state == "serving":
            print(f"serves {words[0]}")
            return 0
        if found and found.state == "refused":
            raise BadInputError(f"{found.said}; the old model goes on")
        if orders.given(file) != order:
            raise BadInputError(f"{file}: another order was given meanwhile")
        if not found and time.monotonic() > began + UNSEEN:
            raise BadInputError(f"{file}: no server looks at it, or its workers do not answer yet")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
