from __future__ import annotations

import msgspec
import pytest

from stackctl import assets
from stackctl.errors import JobFailed
from stackctl.images import catalog, render
from stackctl.images.inventory import Finding, Inventory, PythonPackage
from stackctl.images.lock_list import pins_of
from stackctl.validate import built

IMAGES = assets.images_dir()
(TARGET,) = catalog.targets(catalog.load(), "pytorch", "cpu")
INSTALLED = tuple(PythonPackage(pin.name, pin.version, "", (), 1) for pin in pins_of(TARGET, IMAGES))
INSIDE = Inventory(system="debian", system_version="12", debian=(), python=INSTALLED, bytecode=0)


def test_labels_are_those_of_a_build_now() -> None:
    found = render.labels(TARGET, IMAGES) | {"org.opencontainers.image.revision": "abc"}
    assert built.labels(TARGET, IMAGES, found) == ""
    with pytest.raises(JobFailed, match=r"the label io\.stackctl\.torch is 2\.12\.0, and this checkout says 2\.13\.0"):
        built.labels(TARGET, IMAGES, found | {"io.stackctl.torch": "2.12.0"})
    with pytest.raises(JobFailed, match=r"the label io\.stackctl\.lock is not there"):
        built.labels(TARGET, IMAGES, {name: value for name, value in found.items() if name != "io.stackctl.lock"})


def test_size_is_held_to_the_budget_of_the_catalog() -> None:
    budget = round(TARGET.variant.budget_gb * 1e9)
    assert built.size(TARGET, budget).endswith(f"of {TARGET.variant.budget_gb:.2f} GB")
    with pytest.raises(JobFailed, match="larger than its budget") as error:
        built.size(TARGET, budget + 1)
    assert "images.pytorch.variants.cpu.budget_gb" in str(error.value)


@pytest.mark.parametrize("user", ["", "0", "root", "0:0", "root:root"])
def test_root_is_refused(user: str) -> None:
    with pytest.raises(JobFailed, match="run as root"):
        built.user(user)
    assert built.user("1000:1000") == "1000:1000"


def test_packages_are_those_of_the_locks() -> None:
    assert built.packages(TARGET, IMAGES, INSIDE) == f"{len(INSTALLED)} as locked"
    first, *rest = INSTALLED
    for python, said in (
        (rest, f"{first.name} is absent in the image and {first.version} in its locks"),
        ([*INSTALLED, PythonPackage("extra", "1.0", "", (), 1)], "extra is 1.0 in the image and absent in its locks"),
        (
            [msgspec.structs.replace(first, version="0"), *rest],
            f"{first.name} is 0 in the image and {first.version}",
        ),
    ):
        with pytest.raises(JobFailed) as error:
            built.packages(TARGET, IMAGES, msgspec.structs.replace(INSIDE, python=tuple(python)))
        assert said in str(error.value)


def test_a_secret_is_named_by_place_and_not_repeated() -> None:
    assert built.no_secrets([], {"the history": ["RUN true"]}) == ""
    secret = "ghp_" + "a1B2" * 9
    with pytest.raises(JobFailed) as error:
        built.no_secrets([], {"the environment": [f"TOKEN={secret}"]})
    assert "the environment: GitHub token" in str(error.value)
    assert secret not in str(error.value)
    found = [Finding("/home/stack/.netrc", "netrc password"), Finding("/k", "certificate")]
    with pytest.raises(JobFailed, match=r"/home/stack/\.netrc: netrc password \(and 1 more\)"):
        built.no_secrets(found, {})
