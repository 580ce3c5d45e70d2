"""`python -m stackrt.checks`: run the suite here. See docs/checks.md."""

import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stackrt.checks import log_codec, registry, report, session, show
from stackrt.checks.context import Context, FactsError, read_image, read_nodes, read_seen
from stackrt.checks.meeting import MeetingError
from stackrt.checks.options import UNKNOWN, Options, UsageError, parse, see_burn
from stackrt.checks.registry import Check, UnknownNameError
from stackrt.checks.runner import Interrupted
from stackrt.launch import cpus
from stackrt.launch.gpus import count_visible


def main(words: Sequence[str] | None = None) -> int:
    """Run the suite; the exit code: 0 all passed, 1 warnings, 2 failures, 3 it could not run."""
    try:
        options = parse(sys.argv[1:] if words is None else words)
        checks, context = _prepare(options)
        if options.listing:
            print(show.listing(checks))
            return 0
        made = _run(checks, context)
    except (UsageError, FactsError, UnknownNameError, MeetingError) as error:
        print(f"stackrt.checks: {error}", file=sys.stderr)
        return UNKNOWN
    except Interrupted as error:
        print("stackrt.checks: interrupted; all checks have been ended", file=sys.stderr)
        return 128 + error.number
    if context.node_rank == 0:
        _deliver(made, options)
    return 0 if options.report_only else int(made["exit_code"])


def _prepare(options: Options) -> tuple[list[Check], Context]:
    """The checks to run, and what they are told."""
    image = read_image()
    belonging = registry.belonging(registry.load().values(), image.frameworks if image else None)
    checks = registry.select(belonging, options.only, options.tags)
    see_burn(options.burn, checks)
    if options.required and registry.CHECKS["required"] not in checks:
        checks.append(registry.CHECKS["required"])
    nodes, node_rank, meeting = read_nodes(os.environ)
    return checks, Context(
        image=image,
        scratch=Path(),
        gpus=count_visible(),
        nodes=nodes,
        node_rank=node_rank,
        meeting=meeting,
        required=options.required,
        requested_gpus=options.requested_gpus,
        burn=options.burn,
        seen=read_seen(options.seen) if options.seen else None,
    )


def _run(checks: Sequence[Check], context: Context) -> dict[str, Any]:
    """Run the checks with a scratch folder that is gone afterwards."""
    os.environ.update(cpus.sleeping_soon())  # for what checks compute on the CPU, beside whatever else runs here
    try:
        scratch = tempfile.mkdtemp(prefix="stack-checks-")
    except FileNotFoundError:
        raise UsageError(
            "no folder for temporary files can be written to: give it one (docker run --tmpfs /tmp)"
        ) from None
    try:
        return session.hold(checks, dataclasses.replace(context, scratch=Path(scratch)))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _deliver(made: dict[str, Any], options: Options) -> None:
    """Write and print the report."""
    text = json.dumps(made, indent=2) + "\n"
    if options.json and options.json != "-":
        Path(options.json).write_text(text, encoding="utf-8")
    if options.junit:
        Path(options.junit).write_text(report.junit(made), encoding="utf-8")
    if options.packed:
        print("\n".join(log_codec.pack(made)))
    if options.json == "-":
        sys.stdout.write(text)
    elif not options.report_only:
        print("\n" + show.summary(made))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
