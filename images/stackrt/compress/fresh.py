"""The program of a fresh process that measures: an order in a file, its answer in another."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stackrt.finished import folder
from stackrt.train.errors import ended


def answer(measure: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Measure what the first file of the command line says, write the second, and return the exit code."""

    def run() -> int:
        order, found = map(Path, sys.argv[1:])
        found.write_text(json.dumps(measure(folder.read_json(order, str(order)))), encoding="utf-8")
        return 0

    return ended(run)
