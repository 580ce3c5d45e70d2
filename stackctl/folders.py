"""A person's own folders, also for a uid that has no name and no HOME."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from stackctl.errors import InvalidInput


def expanded(path: str) -> Path:
    """A path with `~` and `~user` replaced; one of nobody stays as it is, where pathlib raises."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def need_home() -> None:
    """Give this process a home if nobody says which, or none that can be one: `/`, as Docker and login do."""
    if not os.environ.get("HOME", "?") or not os.path.isabs(os.path.expanduser("~")):  # noqa: PTH111, PTH117
        os.environ["HOME"] = "/"


def here(where: str = "") -> Path:
    """The current folder.

    Raises:
        InvalidInput: It has gone; `where` names what needs it.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise InvalidInput("the current folder has gone", where=where, hint="change to another one") from None


def data() -> Path:
    """For what stackctl keeps: the platform's folder for a user's data."""
    import platformdirs

    return _below_home(platformdirs.user_data_path, ".local/share")


def cache() -> Path:
    """For what stackctl can make again: the platform's folder for a user's cache."""
    import platformdirs

    return _below_home(platformdirs.user_cache_path, ".cache")


def _below_home(find: Callable[[str], Path], usual: str) -> Path:
    try:
        return find("stackctl")
    except RuntimeError:  # nobody says where home is
        return Path("/", usual, "stackctl")
