"""The suite as a user runs it: `stackctl test`, a plain container, several nodes; its reports."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
import xml.etree.ElementTree as Xml
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from docker import APIClient

from stackctl.engines import container
from stackctl.images import catalog
from tests.commands import PREFIX, ROOT, STACKCTL, Stackctl, environment, hear_signals
from tests.integration.checks.bench import Reports
from tests.support.processes import background
from tests.support.waiting import until

pytestmark = pytest.mark.needs("docker")

SCHEMA = json.loads((ROOT / "images/stackrt/checks/report.schema.json").read_text())
MOST_OVERHEAD = 2.0
"""Seconds of a run in which no check runs."""


def matrix() -> list[Any]:
    """Every image that is built by default: `pytorch`, and `pytorch:cuda` where it can be built."""
    targets = [target for target in catalog.targets(catalog.load()) if target.image.default]
    cuda = [pytest.mark.needs("cuda-images"), pytest.mark.timeout(1800)]
    return [
        pytest.param(f"{target.name}:cuda", marks=cuda) if target.variant.cuda else target.name for target in targets
    ]


@pytest.fixture
def no_containers_left(image: str) -> Iterator[None]:
    yield
    assert containers(image) == []


def containers(image: str) -> list[str]:
    """Those in which the suite runs; other images' may run beside a test."""
    mine = ["--filter", "name=stackctl-test-", "--filter", f"ancestor={image}"]
    argv = ["docker", "ps", "--all", *mine, "--format", "{{.Names}}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("reported", matrix())
def test_no_check_fails_on_an_image_of_the_matrix(reported: str, reports: Reports) -> None:
    report = reports.of(reported)
    jsonschema.validate(report, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert [row for row in report["checks"] if row["status"] == "fail"] == []
    assert all(row["found"] for row in report["checks"] if row["status"] == "skip")
    assert f"{report['image']['image']}:{report['image']['variant']}".removesuffix(":cpu") == reported
    assert report["seen"]["digest"].startswith("sha256:")
    assert report["overhead_seconds"] < MOST_OVERHEAD


@pytest.mark.parametrize("reported", ["pytorch"])
def test_what_the_suite_computes_fits_into_a_minute_even_on_one_core(reported: str, reports: Reports) -> None:
    """Wall time says nothing on a busy machine; `bench/suite.py` measures it."""
    assert sum(row["cpu_seconds"] for row in reports.of(reported)["checks"]) < 60


@pytest.mark.usefixtures("no_containers_left")
def test_a_run_writes_json_and_junit_and_says_what_changed(image: str, stackctl: Stackctl, tmp_path: Path) -> None:
    words = ["test", image, "--only", "lock-match,ulimits", "--require", "gpu"]
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    first = stackctl(*words[:4], "--json", str(old))
    assert first.returncode == 0, first.stderr
    assert "pass  lock-match" in first.stderr
    assert "2 passed, 0 failed" in first.stdout

    second = stackctl(*words, "--json", str(new), "--junit", str(tmp_path / "new.xml"), "--compare", str(old))
    assert second.returncode == 1
    assert "found     no GPU is visible here" in second.stdout
    assert "required: new, fail" in second.stdout
    assert "error: required failed" in second.stderr

    report = json.loads(new.read_text())
    jsonschema.validate(report, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert report["exit_code"] == 2
    suite = Xml.fromstring((tmp_path / "new.xml").read_text()).find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (str(len(cases)), "1", "0")
    assert {case.get("name"): [child.tag for child in case] for case in cases}["required"] == ["failure"]


@pytest.mark.usefixtures("no_containers_left")
def test_in_a_plain_container(image: str) -> None:
    """As in the guide, with a few of the checks: the exit codes are those of monitoring plugins."""
    base = ["docker", "run", "--rm", "--shm-size", "1g", image, "python", "-m", "stackrt.checks"]
    for words, code, said in (
        (["--only", "lock-match"], 0, "1 passed"),
        (["--only", "lock-match", "--require", "gpu"], 2, "FAIL  required"),
        (["--only", "lokc-match"], 3, "did you mean 'lock-match'?"),
        (["--json", "/proc/report.json"], 3, "--json /proc/report.json: cannot be written"),
        (["--list"], 0, "installed == lock, both ways"),
    ):
        done = subprocess.run([*base, *words], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("no_containers_left")
def test_several_nodes_gather_one_report(image: str, stackctl: Stackctl, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = stackctl("test", image, "--nodes", "2", "--tag", "network", "--require", "multi-node", "--json", str(file))
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    jsonschema.validate(report, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert [node["host"] for node in report["nodes"]] == ["node-0", "node-1"]
    ran = {(row["name"], row["node"]): row["status"] for row in report["checks"]}
    assert {ran["rendezvous", node] for node in (0, 1)} == {ran["pairwise-busbw", node] for node in (0, 1)} == {"pass"}


def test_an_image_without_the_suite_is_refused(stackctl: Stackctl) -> None:
    name = f"{PREFIX}bare:1"
    subprocess.run(["docker", "import", "-", name], input=bytes(1024), check=True, capture_output=True)
    try:
        done = stackctl("test", name)
    finally:
        subprocess.run(["docker", "image", "rm", name], check=True, capture_output=True)
    assert done.returncode == 2
    assert "does not carry the suite" in done.stderr


def test_an_image_that_is_not_here(stackctl: Stackctl) -> None:
    done = stackctl("test", "pytorch", env={"STACK_IMAGE_PREFIX": "absent-"})
    assert done.returncode == 3
    assert "build it: `stackctl build pytorch --variant cpu`" in done.stderr


@pytest.mark.usefixtures("no_containers_left")
def test_ctrl_c_ends_the_container(image: str, tmp_path: Path) -> None:
    argv = [STACKCTL, "test", image, "--tag", "image"]
    with background(argv, env=environment(), cwd=tmp_path, stderr=subprocess.PIPE, preexec_fn=hear_signals) as running:
        until(lambda: bool(containers(image)), 30)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert running.returncode == 130, said
    assert "error: interrupted" in said


def interrupt_at_creation(patch: pytest.MonkeyPatch) -> None:
    """Send this process SIGINT when the next container is about to be created."""
    create: Callable[..., Any] = APIClient.create_container_from_config

    def interrupted(*words: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return create(*words)

    patch.setattr(APIClient, "create_container_from_config", interrupted)


@pytest.mark.usefixtures("no_containers_left", "hears_ctrl_c")
def test_ctrl_c_before_the_container_is_there_ends_it_too(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    interrupt_at_creation(monkeypatch)
    config = {"Image": image, "Cmd": ["sleep", "60"], "HostConfig": {"Init": True}}
    with pytest.raises(KeyboardInterrupt):
        container.run(config, f"stackctl-test-{secrets.token_hex(4)}")
    assert time.monotonic() - begun < 20


@pytest.mark.usefixtures("no_containers_left")
def test_ctrl_c_before_the_container_that_is_stopped_for_its_time(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at_creation(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        container.stop_seconds(image, f"stackctl-test-{secrets.token_hex(4)}")


@pytest.mark.usefixtures("no_containers_left")
def test_sigterm_ends_the_suite_of_several_nodes(image: str, tmp_path: Path) -> None:
    argv = [STACKCTL, "test", image, "--on", "compose", "--nodes", "2", "--tag", "network"]
    with background(argv, env=environment(), cwd=tmp_path, stderr=subprocess.PIPE) as running:
        until(lambda: len(containers(image)) == 2, 60)
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "error: interrupted" in said
