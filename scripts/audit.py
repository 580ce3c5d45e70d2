"""List known vulnerabilities of the images' locked packages, offline.

    python scripts/audit.py FOLDER

FOLDER is a checkout of github.com/pypa/advisory-database. Exit code 1 if one is found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from stackctl import assets
from stackctl.images import catalog
from stackctl.images.lock_list import pins_of

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def locked() -> dict[str, dict[str, set[str]]]:
    """Package -> version -> the images that hold it."""
    found: dict[str, dict[str, set[str]]] = {}
    for target in catalog.targets(catalog.load()):
        for pin in pins_of(target, assets.images_dir()):
            images = found.setdefault(pin.name, {}).setdefault(pin.version.partition("+")[0], set())
            images.add(f"{target.name}:{target.variant_name}")
    return found


def advisories(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(package, advisory) of those that are in force; one file each, below vulns/PACKAGE."""
    for name in sorted(names):
        for path in sorted((folder / "vulns" / name).glob("*.yaml")):
            advisory = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)  # noqa: S506 - a safe loader
            if not advisory.get("withdrawn"):
                yield name, advisory


def affects(advisory: dict[str, Any], name: str, version: str) -> bool:
    """Whether an advisory is about this version of a package.

    Source: evaluation of affected versions, https://ossf.github.io/osv-schema/#evaluation
    """
    for affected in advisory["affected"]:
        if canonicalize_name(affected["package"]["name"]) != name:
            continue
        ranges = [row["events"] for row in affected.get("ranges", []) if row["type"] == "ECOSYSTEM"]
        if version in affected.get("versions", []) or any(_within(events, Version(version)) for events in ranges):
            return True
    return False


def _within(events: list[dict[str, Any]], version: Version) -> bool:
    inside = False
    for limit, kind in sorted((_version(limit), kind) for event in events for kind, limit in event.items()):
        if kind == "introduced" and version >= limit:
            inside = True
        if (kind == "fixed" and version >= limit) or (kind == "last_affected" and version > limit):
            inside = False
    return inside


def _version(text: object) -> Version:
    try:
        return Version(str(text))
    except InvalidVersion:
        return Version("0")


def main() -> int:
    """Print each match, then how much was compared."""
    if len(sys.argv) != 2 or not Path(sys.argv[1], "vulns").is_dir():
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    pins = locked()
    compared = list(advisories(Path(sys.argv[1]), pins))
    found = 0
    for name, advisory in compared:
        for version, images in pins[name].items():
            if affects(advisory, name, version):
                found += 1
                names = ", ".join([advisory["id"], *advisory.get("aliases", [])])
                print(f"{name} {version}: {names} (in {', '.join(sorted(images))})")
    print(f"{found} found; {len(compared)} advisories on {len(pins)} packages compared", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
