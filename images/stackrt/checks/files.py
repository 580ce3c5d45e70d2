"""The image's own files: one file system, without what is mounted into it, and what in them looks like a secret.

`stackctl validate` sends this file to the Python of an image, on standard input, so that validate and the suite decide
by the same rules whatever the image was built from. So it is standard library only, and imports nothing of ours.
"""

import csv
import hashlib
import json
import os
import re
import stat
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

LARGEST = 4 << 20
"""Bytes; larger files (libraries) are not searched."""

CERTIFICATE = "certificate"
_CERTIFICATES = re.compile(rb"-----BEGIN CERTIFICATE-{5}.*?-----END CERTIFICATE-----", re.DOTALL)
"""So written, it is none itself: images hold this file."""


class Audit(NamedTuple):
    """What was found in the files that no package brought, or that were changed since."""

    searched: int
    """How many files were read."""
    found: list[tuple[str, str]]
    """Path, and the kind of secret; CERTIFICATE for one that no package brought either."""
    unseen: list[str]
    """Folders that this user may not look into, and files of no package that it may not read."""


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


class Brought:
    """What packages brought: the digests of Debian's, and the sizes in the records of wheels. Such files are public."""

    def __init__(self, root: Path, site: Path) -> None:
        self._folders: dict[str, str] = {}
        self._names: set[str] = set()
        self._md5: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        for listing in (root / "var/lib/dpkg/info").glob("*.list"):
            self._names.update(self._resolved(root, line) for line in listing.read_text(encoding="utf-8").splitlines())
        for listing in (root / "var/lib/dpkg/info").glob("*.md5sums"):
            for line in listing.read_text(encoding="utf-8").splitlines():
                digest, _, path = line.partition("  ")
                self._md5[self._resolved(root, path)] = digest
        for record in site.glob("*.dist-info/RECORD"):
            with suppress(OSError), record.open(encoding="utf-8", newline="") as lines:
                for row in csv.reader(lines):
                    if len(row) > 2 and row[2].isdigit():
                        self._sizes[os.path.normpath(site / row[0])] = int(row[2])
        self._names.update(self._sizes)

    def __contains__(self, path: str) -> bool:
        """Whether a package has a file or folder of this name."""
        return path in self._names

    def same(self, path: str, size: int) -> bool:
        """Whether a file is what its package brought: a wheel's by its size, Debian's by its digest.

        Raises:
            OSError: It cannot be read.
        """
        if path in self._sizes:
            return self._sizes[path] == size
        if path not in self._md5:
            return False  # settings, which Debian expects to be changed, have no digest there
        with open(path, "rb") as file:  # noqa: PTH123 - ten thousand of them
            return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest() == self._md5[path]

    def _resolved(self, root: Path, path: str) -> str:
        """A path of Debian's lists: /lib is a link to /usr/lib, and they have either."""
        folder, _, name = path.lstrip("/").rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(root / folder)
        return f"{self._folders[folder]}/{name}"


def audit(root: Path, site: Path, patterns: Mapping[str, str]) -> Audit:
    """Search an image for what looks like a secret, in files that no package brought or that were changed since.

    Args:
        root: Where the image's files are.
        site: Its environment's site-packages.
        patterns: Kind of secret -> regular expression.
    """
    forms = {kind: re.compile(pattern.encode()) for kind, pattern in patterns.items()}
    brought = Brought(root, site)
    searched, unseen, found = 0, list[str](), list[tuple[str, str]]()
    known: set[bytes] = set()
    certificates: dict[str, list[bytes]] = {}
    for path, status in walk(root):
        if (path not in brought or stat.S_ISDIR(status.st_mode)) and _is_closed(path, status):
            unseen.append(path)
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= LARGEST or _is_bytecode(path):
            continue
        with suppress(OSError):
            theirs = brought.same(path, status.st_size)
            if theirs and not path.endswith((".crt", ".pem")):
                continue
            data = Path(path).read_bytes()
            blocks = _CERTIFICATES.findall(data)
            if theirs:
                known.update(blocks)
                continue
            searched += 1
            found += [(path, kind) for kind, form in forms.items() if form.search(data)]
            if blocks:
                certificates[path] = blocks
    found += [(path, CERTIFICATE) for path, blocks in certificates.items() if not known.issuperset(blocks)]
    return Audit(searched, sorted(found), unseen)


def _is_bytecode(path: str) -> bool:
    return path.endswith(".pyc") and "/__pycache__/" in path


def _is_closed(path: str, status: os.stat_result) -> bool:
    if status.st_mode & 0o444 == 0o444:
        return False
    wanted = {stat.S_IFREG: os.R_OK, stat.S_IFDIR: os.R_OK | os.X_OK}.get(stat.S_IFMT(status.st_mode))
    return wanted is not None and not os.access(path, wanted)


def main() -> None:
    """Print what was found in this image, as JSON. The argument: the patterns, as JSON."""
    made = audit(Path("/"), Path(sysconfig.get_path("purelib")), json.loads(sys.argv[1]))
    print(json.dumps([{"path": path, "what": what} for path, what in made.found]))


if __name__ == "__main__":
    main()
