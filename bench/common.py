"""What the measurements share: their options, and how they end."""

import argparse
import json
from collections.abc import Iterable, Mapping


def parser(doc: str | None, runs: int = 0, what: str = "rounds") -> argparse.ArgumentParser:
    """The options that all have.

    Args:
        doc: The script's own docstring; its first line is the description.
        runs: The default of `--runs`; 0 where there is no such option.
        what: The word for one of them.
    """
    options = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    if runs:
        options.add_argument("--runs", type=int, default=runs, metavar="N", help=f"{what} (default {runs})")
    options.add_argument("--json", action="store_true", help="print one JSON object")
    options.add_argument("--check", action="store_true", help="exit 1 if a bound is missed")
    return options


def conclude(options: argparse.Namespace, found: Mapping[str, object], lines: Iterable[str], *, ok: bool) -> int:
    """Print what was found, as JSON or for a person; the exit code is 1 with `--check` where a bound is missed.

    Args:
        options: As parsed.
        found: The JSON object; `runs`, if there are any, and `ok` are added.
        lines: The same for a person.
        ok: Whether each bound is kept.
    """
    if options.json:
        runs = {"runs": options.runs} if "runs" in options else {}
        print(json.dumps({**found, **runs, "ok": ok}))
    else:
        print("\n".join(lines))
    return 1 if options.check and not ok else 0
