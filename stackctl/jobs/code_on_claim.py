"""Shipped code that a Secret does not hold: where it lies on a claim, and how pods come to it. Pure."""

from __future__ import annotations

from pathlib import Path

FOLDER = ".stackctl/code"
"""On a claim: runs have folders of their own there, and no run's name begins with a dot."""

_PYTHON = ("python", "-I", "-c")
_SENT = "import sys; text = sys.stdin.buffer.read(int(sys.argv.pop(1))); exec(compile(text, 'code', 'exec'))"


def program() -> str:
    """What a pod's Python runs, sent whole: the code in its image may be older."""
    return f"{_source('code_script')}\n\nrun(*sys.argv[1:])\n"


def receiver() -> str:
    """What takes a tree, and then tidies up if it is asked to."""
    return f"{program()}\n\n{_source('code_tidy')}\n\nasked(sys.argv[2])\n"


def _source(name: str) -> str:
    return Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")


def unpack(place: str, tree: str, target: str) -> list[str]:
    """The command that puts a tree together.

    Args:
        place: Where the claim is mounted.
        tree: Its SHA-256.
    """
    return [*_PYTHON, program(), "unpack", f"{place}/{FOLDER}", tree, target]


def receive(place: str, size: int) -> list[str]:
    """The command that takes a tree of so many bytes. Before them it reads `receiver` from its standard input."""
    return [*_PYTHON, _SENT, str(len(receiver().encode())), "receive", f"{place}/{FOLDER}", str(size)]
