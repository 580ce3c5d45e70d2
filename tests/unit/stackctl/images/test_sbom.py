from __future__ import annotations

import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from stackctl import assets
from stackctl.images import catalog, sbom
from stackctl.images.inventory import DebianPackage, Inventory, PythonPackage
from stackctl.images.lock_list import pins_of

IMAGES = assets.images_dir()
TARGETS = catalog.targets(catalog.load())
INSIDE = Inventory(
    system="debian",
    system_version="12",
    debian=(
        DebianPackage("libstdc++6", "12.2.0-14+deb12u1", "amd64", "gcc-12", ("GPL-3+",)),
        DebianPackage("tini", "0.19.0-1", "amd64", "tini", ()),
    ),
    python=(
        PythonPackage("numpy", "2.4.6", "BSD-3-Clause AND MIT", ("BSD License",), 1),
        PythonPackage("tqdm", "4.70.1", "", ("MIT License", "Mozilla Public License 2.0 (MPL 2.0)"), 1),
    ),
    bytecode=0,
)


@pytest.mark.parametrize("inside", [None, INSIDE], ids=["from-locks", "built"])
def test_a_bill_keeps_to_the_schema(inside: Inventory | None) -> None:
    (target,) = catalog.targets(catalog.load(), "horovod-pytorch", "cpu")
    bill = sbom.document(target, IMAGES, inside)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    assert sbom.document(target, IMAGES, inside) == bill


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.key)
def test_a_bill_lists_every_locked_package(target: catalog.Target) -> None:
    components = sbom.document(target, IMAGES, None)["components"]
    listed = {(component["name"], component["version"]): component for component in components}
    for pin in pins_of(target, IMAGES):
        component = listed[pin.name, pin.version]
        assert [f"sha256:{each['content']}" for each in component["hashes"]] == list(pin.hashes)
        assert component["purl"].startswith(f"pkg:pypi/{pin.name}@")


def test_a_build_that_is_not_on_the_default_index_says_where_it_is() -> None:
    (target,) = catalog.targets(catalog.load(), "pytorch", "cpu")
    purls = [component.get("purl", "") for component in sbom.document(target, IMAGES, None)["components"]]
    (torch,) = [purl for purl in purls if purl.startswith("pkg:pypi/torch@")]
    assert torch.startswith("pkg:pypi/torch@2.13.0%2Bcpu?repository_url=https%3A%2F%2F")


def test_horovod_carries_its_patches() -> None:
    (target,) = catalog.targets(catalog.load(), "horovod-pytorch", "cpu")
    (horovod,) = [one for one in sbom.document(target, IMAGES, None)["components"] if one["name"] == "horovod"]
    patches = sorted(IMAGES.glob("patches/*/*.patch"), key=lambda path: path.name)
    assert [patch["diff"]["text"]["content"] for patch in horovod["pedigree"]["patches"]] == [
        path.read_text() for path in patches
    ]


def test_a_built_image_adds_debian_and_licences() -> None:
    (target,) = catalog.targets(catalog.load(), "pytorch", "cpu")
    found = {component["name"]: component for component in sbom.document(target, IMAGES, INSIDE)["components"]}
    system = {"type": "operating-system", "bom-ref": "os:debian@12", "name": "debian", "version": "12"}
    assert found["debian"] == system, "scanners pass over packages of a system that is not named"
    assert found["libstdc++6"]["purl"] == (
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12&upstream=gcc-12"
    )
    assert found["tini"]["purl"] == "pkg:deb/debian/tini@0.19.0-1?arch=amd64&distro=debian-12"
    assert found["numpy"]["licenses"] == [{"expression": "BSD-3-Clause AND MIT"}]
    assert [each["license"]["name"] for each in found["tqdm"]["licenses"]] == list(INSIDE.python[1].licences)
    assert "licenses" not in found["torch"]
