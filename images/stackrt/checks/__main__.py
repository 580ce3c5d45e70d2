"""`python -m stackrt.checks`: run the suite here. See docs/checks.md."""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackrt.checks import host, registry, report, show
from stackrt.checks.context import Context, FactsError, read_image, read_seen
from stackrt.checks.options import Options, UsageError, exit_with, parse
from stackrt.checks.registry import Check, UnknownNameError
from stackrt.checks.runner import Interrupted, Row, idle, run
from stackrt.launch.gpus import count_visible


def main(words: Sequence[str] | None = None) -> int:
    """Run the suite; the exit code: 0 all passed, 1 warnings, 2 failures, 3 it could not run."""
    try:
        options = parse(sys.argv[1:] if words is None else words)
        image = read_image()
        frameworks = image.frameworks if image else None
        belonging = registry.belonging(registry.load().values(), frameworks)
        checks = registry.select(belonging, options.only, options.tags)
        if options.required and registry.CHECKS["required"] not in checks:
            checks.append(registry.CHECKS["required"])
        if options.listing:
            print(show.listing(checks))
            return 0
        seen = read_seen(options.seen) if options.seen else None
        scratch = Path(tempfile.mkdtemp(prefix="stack-checks-"))
    except (UsageError, FactsError, UnknownNameError) as error:
        return exit_with(str(error))
    except FileNotFoundError:
        return exit_with("no folder for temporary files can be written to: give it one (docker run --tmpfs /tmp)")
    context = Context(
        image=image,
        scratch=scratch,
        gpus=count_visible(),
        required=options.required,
        requested_gpus=options.requested_gpus,
        burn=options.burn,
        seen=seen,
    )
    try:
        made = _run(checks, context)
    except Interrupted as error:
        print("stackrt.checks: interrupted; all checks have been ended", file=sys.stderr)
        return 128 + error.number
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _deliver(made, options)


def _run(checks: Sequence[Check], context: Context) -> dict[str, Any]:
    """Run the checks and return the report."""
    begun, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")

    def on_end(row: Row) -> None:
        print(show.line(row), file=sys.stderr, flush=True)

    facts = host.facts()
    rows = run(checks, context, on_end=on_end)
    ended = time.monotonic()
    return report.document(
        image=context.image,
        seen=context.seen,
        nodes=[facts],
        checks=report.rows_of(rows, context.node_rank),
        started=started,
        seconds=ended - begun,
        overhead=idle(rows, begun, ended),
    )


def _deliver(made: dict[str, Any], options: Options) -> int:
    """Write and print the report; the exit code."""
    text = json.dumps(made, indent=2) + "\n"
    if options.json and options.json != "-":
        Path(options.json).write_text(text, encoding="utf-8")
    if options.junit:
        Path(options.junit).write_text(report.junit(made), encoding="utf-8")
    if options.json == "-":
        sys.stdout.write(text)
    elif not options.report_only:
        print("\n" + show.summary(made))
    sys.stdout.flush()
    return 0 if options.report_only else int(made["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
