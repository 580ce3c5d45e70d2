"""The image's own files: one file system, without what is mounted into it."""

import csv
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stackrt.checks.context import Context


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file, link and folder below `root` on its file system that we may see, with its status.

    Paths are plain text: an image has tens of thousands, and several checks look at all of them.
    """
    device = root.lstat().st_dev
    folders = [str(root)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if status.st_dev == device:
                if stat.S_ISDIR(status.st_mode):
                    folders.append(entry.path)
                yield entry.path, status


def size_of(root: Path) -> int:
    """Bytes of all files below `root` on its file system, each hard-linked one once."""
    seen: set[int] = set()
    total = 0
    for _, status in walk(root):
        if status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
        total += status.st_size
    return total


def of_packages(context: Context) -> dict[str, int | None]:
    """Path -> size of every file that a wheel or a Debian package brought; the size is None where it is not recorded.

    Such files are public, so no secret is in them unless they were changed since.
    """
    found: dict[str, int | None] = {}
    for listing in (context.root / "var/lib/dpkg/info").glob("*.list"):
        for line in listing.read_text(encoding="utf-8").splitlines():
            # Debian keeps /lib and its like as links into /usr.
            found[str(context.root / re.sub(r"^/(bin|lib|lib64|sbin)/", r"usr/\1/", line).lstrip("/"))] = None
    for record in context.site.glob("*.dist-info/RECORD"):
        with suppress(OSError), record.open(encoding="utf-8", newline="") as lines:
            for row in csv.reader(lines):
                size = int(row[2]) if len(row) > 2 and row[2].isdigit() else None
                found[os.path.normpath(context.site / row[0])] = size
    return found


def own(context: Context, unseen: list[str] | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """The image's regular files that no package brought, or that were changed since; bytecode left out.

    Args:
        unseen: Is given the folders that this user may not look into, and the files that no package brought.
    """
    packaged = of_packages(context)
    for path, status in walk(context.root):
        known = path in packaged
        if unseen is not None and (not known or stat.S_ISDIR(status.st_mode)) and _is_closed(path, status):
            unseen.append(path)
        if not stat.S_ISREG(status.st_mode) or path.endswith(".pyc"):
            continue
        if not known or packaged[path] not in (None, status.st_size):
            yield path, status


def _is_closed(path: str, status: os.stat_result) -> bool:
    if status.st_mode & 0o444 == 0o444:
        return False
    wanted = {stat.S_IFREG: os.R_OK, stat.S_IFDIR: os.R_OK | os.X_OK}.get(stat.S_IFMT(status.st_mode))
    return wanted is not None and not os.access(path, wanted)
