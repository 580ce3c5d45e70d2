"""The bill of materials of a built image beside the image's own package lists."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.commands import Stackctl


@pytest.mark.needs("docker")
def test_the_bill_of_a_built_image_is_what_is_in_it(image: str, stackctl: Stackctl, tmp_path: Path) -> None:
    done = stackctl("sbom", "pytorch", "--variant", "cpu", "-o", "bill.json")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "bill.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert stackctl("sbom", "pytorch", "--variant", "cpu").stdout == text

    bill = json.loads(text)
    script = (
        "dpkg-query --show --showformat '${Package} ${Version}\\n'; "
        "python -c 'import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]'"
    )
    argv = ["docker", "run", "--rm", "--network", "none", image, "sh", "-c", script]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    installed = {line.lower().replace("_", "-") for line in listed}
    components = {f"{one['name']} {one['version']}" for one in bill["components"] if "purl" in one}
    assert {line.lower() for line in components} == installed
    bare = [
        one["name"] for one in bill["components"] if "purl" in one and "pypi" in one["purl"] and "licenses" not in one
    ]
    assert bare == []


def test_without_the_image_the_bill_is_of_the_locks(stackctl: Stackctl) -> None:
    done = stackctl("sbom", "horovod-pytorch", "--variant", "cpu", env={"STACK_IMAGE_PREFIX": "absent-"})
    assert done.returncode == 0, done.stderr
    assert "without Debian's packages and licences" in done.stderr
    assert "horovod" in {one["name"] for one in json.loads(done.stdout)["components"]}


def test_a_client_whose_engine_does_not_answer_is_no_better_than_none(stackctl: Stackctl) -> None:
    done = stackctl("sbom", "pytorch", "--variant", "cpu", env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    assert done.returncode == 0, done.stderr
    assert "without Debian's packages and licences" in done.stderr
    assert json.loads(done.stdout)["components"]


def test_a_bill_is_of_one_variant(stackctl: Stackctl) -> None:
    refused = stackctl("sbom", "pytorch")
    assert refused.returncode == 2
    assert "give --variant cpu or --variant cuda" in refused.stderr
    assert "Traceback" not in stackctl("sbom", "pytorch", "--variant", "cpu", "-o", "no/such/place").stderr
