"""What an image holds, seen from inside: sent to the image's own Python on standard input, so standard library only.

Arguments: {name: regular expression} of secrets as JSON; none where files need not be searched. Prints one JSON object.
"""

import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

SITE = "/opt/venv/lib"
LARGEST = 4 << 20
"""Bytes; larger files (libraries) are not searched."""

CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def debian_packages() -> list[dict[str, object]]:
    """Installed packages, from dpkg's own list."""
    found: list[dict[str, object]] = []
    for paragraph in Path("/var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n"):
        fields: dict[str, str] = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name = fields["Package"]
            found.append(
                {
                    "name": name,
                    "version": fields["Version"],
                    "architecture": fields["Architecture"],
                    "source": fields.get("Source", name).partition(" (")[0],
                    "licences": debian_licences(name),
                }
            )
    return sorted(found, key=lambda package: str(package["name"]))


def debian_licences(package: str) -> list[str]:
    """The short names in a package's copyright file, where it has the machine-readable form."""
    try:
        text = Path(f"/usr/share/doc/{package}/copyright").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return sorted(set(re.findall(r"^License: *(\S.*?)\s*$", text, re.MULTILINE))) if text.startswith("Format:") else []


def python_packages() -> list[dict[str, object]]:
    """Installed distributions: version, licence as its metadata has it, and the bytes of its files."""
    found = []
    for folder in sorted(Path(SITE).glob("python3*/site-packages")):
        for one in metadata.distributions(path=[str(folder)]):
            headers = one.metadata
            stated = headers["License"] or ""
            lines = headers.get_all("Classifier") or []
            classified = {line.rpartition(" :: ")[2] for line in lines if line.startswith("License ::")}
            found.append(
                {
                    "name": re.sub(r"[-_.]+", "-", headers["Name"]).lower(),
                    "version": one.version,
                    "expression": headers["License-Expression"] or "",
                    # Some put the whole text of the licence into the field for its name.
                    "licences": sorted(classified) or ([stated] if 0 < len(stated) < 80 else []),
                    "bytes": sum(size(str(path)) for path in {str(path.locate()) for path in one.files or []}),
                }
            )
    return sorted(found, key=lambda package: str(package["name"]))


def size(path: str) -> int:
    """Bytes of a file, without following a link; 0 if it is not there."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def bytecode() -> int:
    """Bytes of compiled Python in the virtual environment."""
    return sum(size(str(path)) for path in Path(SITE).rglob("*.pyc"))


class Published:
    """Files as their packages brought them: Debian's md5sums, and the sizes in the RECORD of each wheel."""

    def __init__(self) -> None:
        self.md5: dict[str, str] = {}
        folders: dict[str, str] = {}  # /lib is a link to /usr/lib, and Debian's lists have either
        for listing in Path("/var/lib/dpkg/info").glob("*.md5sums"):
            for line in listing.read_text(encoding="utf-8").splitlines():
                digest, _, path = line.partition("  ")
                folder, _, name = f"/{path}".rpartition("/")
                if folder not in folders:
                    folders[folder] = os.path.realpath(folder)
                self.md5[f"{folders[folder]}/{name}"] = digest
        self.bytes: dict[str, int] = {}
        for record in Path(SITE).glob("python3*/site-packages/*.dist-info/RECORD"):
            for line in record.read_text(encoding="utf-8").splitlines():
                path, _, length = line.rpartition(",")
                if length:
                    self.bytes[f"{record.parent.parent}/" + path.rpartition(",")[0].strip('"')] = int(length)

    def has(self, path: str, length: int) -> bool:
        """Whether a file is still what its package brought: a wheel's by its size, Debian's by its digest."""
        if path in self.bytes:
            return self.bytes[path] == length
        if path not in self.md5:
            return False
        with open(path, "rb") as file:
            return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest() == self.md5[path]


def regular_files(root: str) -> Iterator[tuple[str, int]]:
    """Path and size of regular files of the image itself: no mounts, and no compiled Python."""
    device = os.lstat(root).st_dev
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if os.lstat(os.path.join(folder, name)).st_dev == device]
        if os.path.basename(folder) == "__pycache__":
            continue
        for name in files:
            path = os.path.join(folder, name)
            about = os.lstat(path)
            if stat.S_ISREG(about.st_mode) and about.st_dev == device and about.st_size <= LARGEST:
                yield path, about.st_size


def secrets(patterns: dict[str, str]) -> list[dict[str, str]]:
    """Files that no package brought and that look like a secret, or hold a certificate that no package brought."""
    compiled = {name: re.compile(pattern.encode()) for name, pattern in patterns.items()}
    published = Published()
    known: set[bytes] = set()
    hits: list[tuple[str, str]] = []
    certificates: dict[str, list[bytes]] = {}
    for path, length in regular_files("/"):
        theirs = published.has(path, length)
        if theirs and not path.endswith((".crt", ".pem")):
            continue
        with open(path, "rb") as file:
            data = file.read()
        blocks = CERTIFICATE.findall(data)
        if theirs:
            known.update(blocks)
            continue
        hits += [(path, name) for name, pattern in compiled.items() if pattern.search(data)]
        if blocks:
            certificates[path] = blocks
    foreign = [(path, "certificate") for path, blocks in certificates.items() if not known.issuperset(blocks)]
    return [{"path": path, "what": what} for path, what in sorted(hits + foreign)]


def main() -> None:
    """Print what was found."""
    release = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    found: dict[str, object] = {
        "system": release["ID"],
        "system_version": release["VERSION_ID"],
        "debian": debian_packages(),
        "python": python_packages(),
        "bytecode": bytecode(),
        "secrets": secrets(json.loads(sys.argv[1])) if len(sys.argv) > 1 else [],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
