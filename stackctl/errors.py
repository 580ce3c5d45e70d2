"""Every failure that `stackctl` expects. Each class carries its exit code; `cli.main` prints each once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class StackError(Exception):
    """An expected failure: what is wrong, where, and what to do about it.

    Args:
        message: What is wrong, one sentence.
        where: File and key, option, or command that it is about.
        hint: What to do.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class JobFailed(StackError):
    """The user's job, image build or check failed."""

    exit_code = 1


class InvalidInput(StackError):
    """Something the user wrote (option, file, catalog) cannot be used."""

    exit_code = 2


class MissingHere(StackError):
    """This machine lacks what the command needs: an engine, a package, a GPU, room on the disk."""

    exit_code = 3


class NameTaken(StackError):
    """A run of that name, or in that folder, exists."""

    exit_code = 4


class StillRunning(StackError, TimeoutError):
    """Somebody waited for a run for as long as they wanted to; the run goes on. Its code is that of timeout(1)."""

    exit_code = 124


class CommandFailed(JobFailed):
    """A program that we started ended with an error.

    Args:
        argv: The command line, as a list.
        code: Its exit status.
        output: Its last lines.
        hint: What to do.
    """

    def __init__(self, argv: Sequence[str], code: int, output: str = "", *, hint: str = "") -> None:
        shown = " ".join(argv[:3]) + (" …" if len(argv) > 3 else "")
        tail = "\n".join(f"  | {line}" for line in output.strip().splitlines()[-15:])
        super().__init__(f"`{shown}` ended with exit code {code}" + (f"\n{tail}" if tail else ""), hint=hint)
        self.argv = tuple(argv)
        self.code = code
        self.output = output


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown word: the nearest known one, else all of them."""
    import difflib  # only where something is wrong: it takes a twentieth of the start-up

    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(names)}" if names else ""
