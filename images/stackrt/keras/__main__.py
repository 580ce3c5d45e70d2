"""The command line: `python -m stackrt.keras`."""

import sys
from collections.abc import Sequence

from stackrt.keras import options
from stackrt.train.errors import ended


def main(argv: Sequence[str]) -> int:
    """Train or predict; expected failures become one line and an exit code.

    Raises:
        Exception: What was not expected; with STACK_DEBUG=1 also what was.
    """

    def run() -> int:
        o = options.parse(argv)
        if o.predict:
            from stackrt.keras import predict

            return predict.run(o)
        from stackrt.keras import train

        return train.run(o)

    return ended(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
