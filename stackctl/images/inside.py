"""What an image holds, seen from inside: sent to the image's own Python on standard input, so standard library only.

Arguments: {name: regular expression} of secrets as JSON; none where files need not be searched. Prints one JSON object.
"""

import base64
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
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
    """Files as their packages brought them: Debian's md5sums, and the RECORD of each wheel."""

    def __init__(self) -> None:
        self.md5: dict[str, str] = {}
        for listing in Path("/var/lib/dpkg/info").glob("*.md5sums"):
            for line in listing.read_text(encoding="utf-8").splitlines():
                digest, _, path = line.partition("  ")
                self.md5[os.path.realpath("/" + path)] = digest
        self.sha256: dict[str, str] = {}
        for record in Path(SITE).glob("python3*/site-packages/*.dist-info/RECORD"):
            for line in record.read_text(encoding="utf-8").splitlines():
                path, _, rest = line.rpartition(",")[0].rpartition(",")
                if rest.startswith("sha256="):
                    self.sha256[str(record.parent.parent / path.strip('"'))] = rest.removeprefix("sha256=")

    def has(self, path: str, data: bytes) -> bool:
        """Whether a file is still what its package brought."""
        if path in self.md5:
            return hashlib.md5(data, usedforsecurity=False).hexdigest() == self.md5[path]
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        return self.sha256.get(path) == digest


def regular_files(root: str) -> Iterator[str]:
    """Paths of regular files of the image itself: no mounts, no compiled Python that has its source beside it."""
    device = os.lstat(root).st_dev
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if os.lstat(os.path.join(folder, name)).st_dev == device]
        if os.path.basename(folder) == "__pycache__":
            continue
        for name in files:
            path = os.path.join(folder, name)
            about = os.lstat(path)
            if stat.S_ISREG(about.st_mode) and about.st_dev == device and about.st_size <= LARGEST:
                yield path


def secrets(patterns: dict[str, str]) -> list[dict[str, str]]:
    """Files that hold what looks like a secret and that no package brought, and certificates of nobody's package."""
    compiled = {name: re.compile(pattern.encode()) for name, pattern in patterns.items()}
    published = Published()
    known: set[bytes] = set()
    hits: list[tuple[str, str]] = []
    certificates: dict[str, list[bytes]] = {}
    for path in regular_files("/"):
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(b"\x7fELF"):
            continue
        names = [name for name, pattern in compiled.items() if pattern.search(data)]
        blocks = CERTIFICATE.findall(data) if b"-----BEGIN CERTIFICATE-----" in data else []
        if (names or blocks) and published.has(path, data):
            known.update(blocks)
            continue
        hits += [(path, name) for name in names]
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
