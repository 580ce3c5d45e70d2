"""The bill of materials of an image, CycloneDX 1.6 as JSON: from its locks, and from the image where it is built. Pure.

Source: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from stackctl import __version__
from stackctl.images import lockfile, render
from stackctl.images.catalog import Target
from stackctl.images.lock_list import pins_of
from stackrt.contract import LOCK_LABEL

if TYPE_CHECKING:
    from stackctl.images.inventory import DebianPackage, Inventory, PythonPackage

Document = dict[str, Any]


def document(target: Target, images: Path, inside: Inventory | None) -> Document:
    """The bill of an image; the same inputs give the same bytes.

    Args:
        target: The image and variant.
        images: The folder that holds locks and patches.
        inside: What the built image holds; without it Debian's packages and all licences are left out.

    Raises:
        InvalidInput: A lock is absent.
    """
    locked = render.labels(target, images)[LOCK_LABEL]
    installed = {package.name: package for package in inside.python} if inside else {}
    components = [_wheel(pin, target, installed.get(pin.name), images) for pin in pins_of(target, images)]
    if inside:
        components.append(_system(inside))
        components += [_debian(package, inside) for package in inside.debian]
    components.append(_launcher())
    components.sort(key=lambda component: str(component["bom-ref"]))
    image = {
        "type": "container",
        "bom-ref": target.tag,
        "name": target.tag,
        "version": __version__,
        "description": target.image.summary,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "properties": [
            {"name": "stackctl:lock", "value": locked},
            {"name": "stackctl:base", "value": target.base.image},
        ],
    }
    everything = [component["bom-ref"] for component in components]
    contents = "\n".join([locked, *everything])
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{target.tag}\n{contents}").urn,
        "version": 1,
        "metadata": {"component": image, "tools": {"components": [_launcher()]}},
        "components": components,
        "dependencies": [
            {"ref": target.tag, "dependsOn": everything},
            *({"ref": reference, "dependsOn": []} for reference in everything),
        ],
    }


def _wheel(pin: lockfile.Pin, target: Target, installed: PythonPackage | None, images: Path) -> Document:
    purl = f"pkg:pypi/{pin.name}@{quote(pin.version)}"
    if "+" in pin.version and target.variant.index:
        purl += f"?repository_url={quote(target.variant.index, safe='')}"
    component: Document = {
        "type": "library",
        "bom-ref": purl,
        "name": pin.name,
        "version": pin.version,
        "purl": purl,
        # Any of these files may be the one installed: a lock holds the digest of each platform's.
        "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")} for digest in pin.hashes],
    }
    if installed and installed.expression:
        component["licenses"] = [{"expression": installed.expression}]
    elif installed and installed.licences:
        component["licenses"] = _named(installed.licences)
    if pin.name == "horovod":
        component["pedigree"] = {
            "patches": [_patch(path, images) for path in horovod_patches(images)],
            "notes": "compiled from its source release, with these patches, against the framework in this image",
        }
    return component


def horovod_patches(images: Path) -> list[Path]:
    """The patches that Horovod is built with: to what is compiled, then to its Python code."""
    return [
        path for name in ("horovod", "horovod-python") for path in sorted((images / "patches" / name).glob("*.patch"))
    ]


def _patch(path: Path, images: Path) -> Document:
    text = path.read_text(encoding="utf-8")
    return {
        "type": "unofficial",
        "diff": {
            "url": path.relative_to(images.parent).as_posix(),
            "text": {"contentType": "text/x-diff", "content": text},
        },
    }


def _system(inside: Inventory) -> Document:
    """The distribution; scanners pass over a distribution's packages where a bill does not name it."""
    return {
        "type": "operating-system",
        "bom-ref": f"os:{inside.system}@{inside.system_version}",
        "name": inside.system,
        "version": inside.system_version,
    }


def _debian(package: DebianPackage, inside: Inventory) -> Document:
    purl = f"pkg:deb/{inside.system}/{quote(package.name, safe='')}@{quote(package.version, safe='')}"
    purl += f"?arch={package.architecture}&distro={inside.system}-{inside.system_version}"
    if package.source != package.name:
        purl += f"&upstream={quote(package.source, safe='')}"
    component: Document = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    }
    if package.licences:
        component["licenses"] = _named(package.licences)
    return component


def _named(licences: Sequence[str]) -> list[Document]:
    return [{"license": {"name": name}} for name in licences]


def _launcher() -> Document:
    return {
        "type": "application",
        "bom-ref": f"stackrt@{__version__}",
        "name": "stackrt",
        "version": __version__,
        "description": "launcher and trainers, from the same sources as stackctl",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
