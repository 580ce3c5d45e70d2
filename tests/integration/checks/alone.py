"""`python -m tests.integration.checks.alone [MODULE…]`: imports these, and makes checks in forks of its own."""

import importlib
import os
import pickle
import sys

from stackrt.checks import registry
from stackrt.checks.result import Result
from stackrt.checks.runner import run


def main() -> None:
    registry.load()
    for name in sys.argv[1:]:
        importlib.import_module(name)
    while True:
        try:
            name, context, plant, env = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if os.fork() == 0:
            try:
                os.environ.update(env)
                if plant:
                    plant()
                answer: Result | str = run([registry.CHECKS[name]], context)[0].result
            except Exception as error:
                answer = repr(error)
            os.write(1, pickle.dumps(answer))
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main()
