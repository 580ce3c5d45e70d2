"""The file tree of an image, as digests: what two builds of the same inputs must agree on."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile

OF_THE_ENGINE = frozenset({".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"})
"""Files that the engine puts into every container."""


def digests(image: str) -> dict[str, str]:
    """Path -> kind, mode, owner and content of every file; times are left out."""
    container = subprocess.run(["docker", "create", image], capture_output=True, text=True, check=True).stdout.strip()
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout
            with tarfile.open(fileobj=export.stdout, mode="r|") as archive:
                return {file.name: _digest(archive, file) for file in archive if file.name not in OF_THE_ENGINE}
    finally:
        subprocess.run(["docker", "rm", "--volumes", container], capture_output=True, check=True)


def _digest(archive: tarfile.TarFile, file: tarfile.TarInfo) -> str:
    content = archive.extractfile(file) if file.isreg() else None
    digest = hashlib.sha256()
    while content and (block := content.read(1 << 20)):
        digest.update(block)
    return f"{file.type!r} {file.mode:o} {file.uid}:{file.gid} {digest.hexdigest()} {file.linkname}"


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The paths that are in one tree alone, or not alike in both."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
