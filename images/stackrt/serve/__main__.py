"""Serve a trained model over HTTP.

    python -m stackrt.serve runs/mine/export                  a language model: OpenAI's API
    python -m stackrt.serve runs/mine/model.keras --port 0    a Keras model: TensorFlow Serving's REST API, and v2

GET /health/live, /health/ready and /metrics are for whoever watches over it. Each request is a line of JSON in the log.
"""

import sys
import time
from collections.abc import Sequence

from stackrt.serve import found as models
from stackrt.serve import keeper, memory, options
from stackrt.signals import handled
from stackrt.train.errors import TrainerError, complain


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the exit code."""
    began, stopped = time.monotonic(), list[int]()
    try:
        with handled(stopped.append):  # as process 1 of a container we would not hear it otherwise
            o = options.parse(sys.argv[1:] if argv is None else argv)
            model = models.find(o.model)
            memory.fits(model, o)
            with keeper.listening(o) as listening:
                try:
                    kept = keeper.Keeper(o, model, listening, began, stopped)
                except OSError as error:
                    raise TrainerError(f"the workers cannot be started: {error.strerror}") from None
                return kept.run()
    except TrainerError as error:
        return complain(error)


if __name__ == "__main__":
    sys.exit(main())
