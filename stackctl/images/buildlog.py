"""What buildx prints, cut down to what a person needs: a line a step, and of a failure its cause. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from stackctl.errors import JobFailed, MissingHere, StackError
from stackctl.images.catalog import Target
from stackctl.images.lockfile import place
from stackctl.images.settings import Settings, base_image

_STEP = re.compile(r"^#(\d+) \[((?!internal|context|auth)[\w.-]+ +\d+/\d+)\]")
_LINE = re.compile(r"^#(\d+) (.*)$")
_AGAIN = "run this again: finished steps are kept. Mirrors, proxies and a private CA: docs/settings.md"


class BuildLog:
    """Reads the lines of `buildx build --progress=plain`.

    Args:
        show: Is given each line for the person watching.
        verbose: Show every line as it is.
    """

    def __init__(self, show: Callable[[str], None], *, verbose: bool = False) -> None:
        self.lines: list[str] = []
        self._show = show
        self._verbose = verbose
        self._names: dict[str, str] = {}
        self._begun: set[str] = set()

    def feed(self, line: str) -> None:
        """Take one line."""
        self.lines.append(line)
        if self._verbose:
            self._show(line)
            return
        if step := _STEP.match(line):
            self._names[step[1]] = re.sub(" +", " ", step[2])
        elif line.startswith("#") and line.endswith(" exporting to image"):
            self._names[line[1:].split(maxsplit=1)[0]] = "exporting to image"
        elif (found := _LINE.match(line)) and found[1] in self._names:
            self._of_step(found[1], found[2])

    def _of_step(self, number: str, text: str) -> None:
        if text == "CACHED":
            return
        ended = re.match(r"DONE (\d+\.\d)s", text)
        if ended:
            if float(ended[1]) >= 1:
                self._show(f"  {self._names[number]}: {ended[1]} s")
        elif number not in self._begun:
            self._begun.add(number)
            if self._names[number] != "exporting to image":
                self._show(f"  {self._names[number]} …")


def explain(lines: list[str], target: Target, settings: Settings, locks: Path) -> StackError:
    """The failure of a build as one error: its step, its cause where it is a known one, and what to do.

    Args:
        lines: All that buildx printed.
        target: What was built.
        settings: Where its packages come from.
        locks: The folder of locks, for the line of a package.
    """
    step, output, command = _failed_step(lines)
    lock = re.search(r"images/locks/([\w.-]+\.txt)", command)
    text = "\n".join([*output, lines[-1] if lines else ""])
    at = f"{target.tag}, step {step}" if step else target.tag
    whole = "\n".join(_logged(lines, step) or output)
    hashes = re.search(r"Hash mismatch for `([\w.-]+)==|DO NOT MATCH THE HASHES[\s\S]*?\n([\w.-]+)==\S+ from ", whole)
    if hashes:
        name = hashes[1] or hashes[2]
        return JobFailed(
            f"a file of {name} has another hash than the lock, so it was not installed ({at})",
            where=place(locks / lock[1], name) if lock else "",
            hint="the index or wheelhouse serves another file; if that is right, make the lock again: `stackctl lock`",
        )
    if re.search("no space left on device", text, re.IGNORECASE):
        return MissingHere(
            "the engine's disk is full",
            where=at,
            hint="`docker system df` shows what takes room, `docker builder prune` frees some; then run this again",
        )
    base = re.search(r"failed to resolve source metadata for \S+: (.+)$|pull access denied", text, re.MULTILINE)
    if base:
        return JobFailed(
            f"the base image {base_image(target, settings)} cannot be had: {base[1] or 'the registry refuses it'}",
            where=target.tag,
            hint="set STACK_BASE_REGISTRY to a registry that has it, or load it with `docker load`",
        )
    absent = re.search(r"[Bb]ecause ([\w.-]+) was not found in the provided package locations", text)
    if absent:
        return JobFailed(
            f"the wheelhouse has no {absent[1]} for this Python and platform ({at})",
            where=place(locks / lock[1], absent[1]) if lock else "",
            hint="collect it with `stackctl wheelhouse`",
        )
    silent = re.search(
        r"^.*(?:Failed to fetch|error sending request|Temporary failure resolving|Could not resolve|Unable to connect"
        r"|Connection (?:refused|timed out|reset|failed)|Network is unreachable|dns error).*$",
        text,
        re.MULTILINE,
    )
    if silent:
        return JobFailed(f"a source does not answer: {_bare(silent[0])}", where=at, hint=_AGAIN)
    tail = "\n".join(f"  | {line}" for line in output[-15:] or [_bare(lines[-1]) if lines else "it said nothing"])
    return JobFailed(f"the build failed\n{tail}", where=at, hint="`--verbose` shows all that the builder says")


def _failed_step(lines: list[str]) -> tuple[str, list[str], str]:
    """The step that failed, the end of its output, and its command, from the frame that buildx ends with."""
    marks = [number for number, line in enumerate(lines) if line == "------"]
    if len(marks) < 2:
        return "", [], ""
    head, *output = lines[marks[-2] + 1 : marks[-1]] or [""]
    step = re.match(r" > \[([^\]]+)\] ?(.*):$", head)
    return (re.sub(" +", " ", step[1]), [_bare(line) for line in output], step[2]) if step else ("", output, "")


def _logged(lines: list[str], step: str) -> list[str]:
    """All that a step said. The frame has only its last lines: a package of many files has more hashes than those."""
    numbers = {found[1] for line in lines if (found := _STEP.match(line)) and re.sub(" +", " ", found[2]) == step}
    return [_bare(found[2]) for line in lines if (found := _LINE.match(line)) and found[1] in numbers]


def _bare(line: str) -> str:
    """A line of output without its time stamp."""
    return re.sub(r"^(\d+\.\d+|ERROR:) ", "", line).strip()
