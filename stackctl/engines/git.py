"""What git knows of a folder."""

from __future__ import annotations

import os
from pathlib import Path

from stackctl.engines import process
from stackctl.errors import StackError

_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
"""Where git looks in place of the folder that it is asked about. It sets them for its hooks, and so for us in one."""


def ask(folder: Path, *words: str) -> str:
    """What git answers about the repository that a folder is in.

    Raises:
        MissingHere: There is no git.
        CommandFailed: It refuses.
    """
    env = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return process.run(["git", "-C", str(folder), *words], env=env)


def labels(folder: Path) -> dict[str, str]:
    """OCI labels for an image built from a checkout: its commit and that commit's time. Empty elsewhere.

    The time is the commit's, not the build's, so that building the same commit again gives the same image.
    """
    try:
        answer = ask(folder, "log", "-1", "--format=%H %cI").split()
        changed = ask(folder, "status", "--porcelain", "--", ".").strip()
    except StackError:
        return {}
    return {
        "org.opencontainers.image.revision": answer[0] + ("-dirty" if changed else ""),
        "org.opencontainers.image.created": answer[1],
    }
