"""What an image holds, seen from inside: sent to the image's own Python on standard input, so standard library only.

Prints one JSON object.
"""

import json
import os
import re
from importlib import metadata
from pathlib import Path

SITE = "/opt/venv/lib"


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
                    # Some put the whole text of the licence into the field for its name, and some name its file alone.
                    "licences": sorted(classified)
                    or ([stated] if 0 < len(stated) < 80 else [])
                    or [f"see its {name}" for name in headers.get_all("License-File") or []],
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


def main() -> None:
    """Print what was found."""
    release = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    found: dict[str, object] = {
        "system": release["ID"],
        "system_version": release["VERSION_ID"],
        "debian": debian_packages(),
        "python": python_packages(),
        "bytecode": bytecode(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
