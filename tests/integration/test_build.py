"""The image as it is built: what is in it, how fast it is rebuilt, how failures read."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.images import catalog, render
from stackctl.images.lock_list import pins_of
from tests.commands import PREFIX, ROOT, Stackctl, environment
from tests.integration.conftest import Copy
from tests.timing import fastest

pytestmark = pytest.mark.needs("docker")


def in_image(image: str, *words: str, options: tuple[str, ...] = ()) -> str:
    """Run a command in a container of the image; returns its output."""
    argv = ["docker", "run", "--rm", "--network", "none", *options, image, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def inspect(image: str) -> dict[str, object]:
    """What the engine says of an image."""
    out = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True, check=True).stdout
    row = json.loads(out)[0]
    assert isinstance(row, dict)
    return row


def test_it_starts_through_tini_as_uid_1000(image: str) -> None:
    assert in_image(image, "id", "-u") == "1000\n"
    assert in_image(image, "cat", "/proc/1/comm") == "tini\n"


@pytest.mark.parametrize("user", ["1000:1000", "4242:4242", "65534:0"])
def test_any_uid_can_use_it_on_a_read_only_root(image: str, user: str) -> None:
    script = (
        "import getpass, pathlib, torch, stackrt; getpass.getuser(); "
        "[ (pathlib.Path(p) / 'x').touch() for p in ('/out', '/workspace', pathlib.Path.home()) ]; "
        "print(torch.__version__)"
    )
    options: tuple[str, ...] = (
        "--user",
        user,
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
    )
    for folder in ("/out", "/workspace", "/home/stack", "/tmp"):
        options += ("--tmpfs", f"{folder}:mode=1777")
    assert in_image(image, "python", "-c", script, options=options) == "2.13.0+cpu\n"


def test_installed_packages_are_the_lock(image: str) -> None:
    target = catalog.targets(catalog.load(), "pytorch", "cpu")[0]
    script = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    installed = json.loads(in_image(image, "python", "-c", script))
    locked = {pin.name: pin.version for pin in pins_of(target, ROOT / "images")}
    assert {name.lower().replace("_", "-").replace(".", "-"): version for name, version in installed.items()} == locked


def test_the_payload_is_compiled_and_importable(image: str) -> None:
    script = "import stackrt.launch as m, pathlib; print(m.__cached__, pathlib.Path(m.__cached__).exists())"
    assert in_image(image, "python", "-c", script).strip().endswith(".pyc True")


def test_labels_say_what_it_is(image: str) -> None:
    config = inspect(image)["Config"]
    assert isinstance(config, dict)
    labels = config["Labels"]
    target = catalog.targets(catalog.load(), "pytorch", "cpu")[0]
    for name, value in render.labels(target, ROOT / "images").items():
        assert labels[name] == value
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == commit.stdout.strip()


def test_neither_the_ca_nor_package_lists_nor_caches_stay(image: str) -> None:
    folders = ("/run", "/tmp", "/var/log", "/var/lib/apt/lists", "/var/cache/apt", "/var/cache/uv", "~root/.cache")
    script = f"find {' '.join(folders)} /etc/uv/uv.toml /etc/pip.conf -type f -size +0 2>/dev/null || true"
    assert in_image(image, "sh", "-c", script, options=("--user", "0")) == ""
    history = subprocess.run(["docker", "history", "--no-trunc", image], capture_output=True, text=True, check=True)
    ca = os.environ.get("STACK_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    if ca:
        assert ca not in history.stdout


@pytest.mark.quiet
def test_a_no_op_and_a_payload_edit_are_quick(image: str, tmp_path: Path) -> None:
    """Bounds of the issue: 2 s and 3 s."""
    copy, numbers = tmp_path / "checkout", itertools.count()

    def build() -> float:
        start = time.monotonic()
        argv = [sys.executable, "-m", "stackctl", "build", "pytorch", "--variant", "cpu"]
        subprocess.run(
            argv, env=environment(PYTHONPATH=str(copy)), cwd=copy, capture_output=True, timeout=120, check=True
        )
        return time.monotonic() - start

    def edited() -> float:
        number = next(numbers)
        (copy / "images" / "stackrt" / "marker.py").write_text(f"NUMBER = {number}\n")
        seconds = build()
        script = "import stackrt.marker as m; print(m.NUMBER)"
        assert in_image(f"{PREFIX}pytorch:cpu", "python", "-c", script) == f"{number}\n"
        return seconds

    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
    for folder in ("stackctl", "images"):
        subprocess.run(["cp", "-a", str(ROOT / folder), str(copy)], check=True)
    build()
    assert fastest(build, 2.0) <= 2.0
    assert fastest(edited, 3.0) <= 3.0


def test_the_result_is_told_in_words_and_as_json(image: str, stackctl: Stackctl) -> None:
    said = stackctl("build", "pytorch", "--variant", "cpu")
    assert said.stdout.startswith(f"{PREFIX}pytorch:cpu  sha256:")
    assert " GB " in said.stdout
    (built,) = json.loads(stackctl("build", "pytorch", "--variant", "cpu", "--json").stdout)
    assert built["digest"] == inspect(image)["Id"]
    assert built["size"] == inspect(image)["Size"]


def test_a_failing_build_keeps_the_earlier_image(image: str, stackctl: Stackctl) -> None:
    before = inspect(image)["Id"]
    failed = stackctl("build", "pytorch", "--variant", "cpu", env={"STACK_BASE_REGISTRY": "localhost:9/nowhere"})
    assert failed.returncode == 1
    assert "the base image localhost:9/nowhere/debian:bookworm-slim cannot be had" in failed.stderr
    assert "STACK_BASE_REGISTRY" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert inspect(image)["Id"] == before


def test_behind_a_firewall_it_says_which_source_does_not_answer(image: str, stackctl: Stackctl) -> None:
    """Debian's lists, and not that packages are absent: apt takes lists that it could not fetch for a warning."""
    env = {"STACK_APT_MIRROR": "http://127.0.0.1:9/debian", "STACK_IMAGE_PREFIX": f"{PREFIX}firewall-"}
    failed = stackctl("build", "pytorch", "--variant", "cpu", env=env)
    assert failed.returncode == 1, failed.stderr
    assert "a source does not answer: Could not connect to 127.0.0.1:9" in failed.stderr


@pytest.mark.parametrize("file", ["dockerfiles/pytorch-cpu.Dockerfile", "facts/pytorch-cpu.json", "catalog.toml"])
def test_what_was_edited_and_not_rendered_is_not_built(file: str, copy: tuple[Path, Copy]) -> None:
    root, stackctl = copy
    path = root / "images" / file
    path.write_text(
        path.read_text().replace("PyTorch with Hugging", "PyTorch and Hugging").replace("1.75", "1.7") + "\n"
    )
    refused = stackctl("build", "pytorch", "--variant", "cpu")
    assert refused.returncode == 2, refused.stdout
    assert "is not what catalog, templates and locks give" in refused.stderr
    assert "run `stackctl render`" in refused.stderr


def test_without_docker_it_says_so(stackctl: Stackctl, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    missing = stackctl("build", "pytorch", env={"PATH": str(tmp_path / "empty")})
    assert missing.returncode == 3
    assert "the program 'docker' is not installed here" in missing.stderr
    silent = stackctl("build", "pytorch", env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    assert silent.returncode == 3
    assert "the Docker engine does not answer" in silent.stderr


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("row", "package", "version"), [("pytorch", "torch", "2.13.0+cpu"), ("tensorflow", "tensorflow", "2.21.0")]
)
def test_the_classic_road(built: Callable[[str], str], row: str, package: str, version: str) -> None:
    """`docker build` without stackctl gives the same layers, straight from the cache."""
    built(row)
    name = f"{PREFIX}classic"
    ca = os.environ.get("STACK_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or os.devnull
    argv = ["docker", "build", "--quiet", "--tag", name, "--secret", f"id=ca,src={ca}"]
    argv += ["--file", f"images/dockerfiles/{row}-cpu.Dockerfile"]
    if os.environ.get("STACK_WHEELHOUSE"):
        argv += ["--build-context", f"wheelhouse={os.environ['STACK_WHEELHOUSE']}"]
        argv += ["--build-arg", "FRAMEWORK_INDEX="] if row == "pytorch" else []
    try:
        subprocess.run([*argv, "."], cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
        shell = ["docker", "run", "--rm", "--interactive", "--volume", f"{ROOT}:/workspace:ro", name, "/bin/bash"]
        words = f"python -c 'import {package}; print({package}.__version__)'; ls README.md"
        done = subprocess.run(shell, input=words, capture_output=True, text=True, timeout=180, check=True)
        assert done.stdout == f"{version}\nREADME.md\n"
    finally:
        subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)


def test_make_images_builds_what_it_is_told(stackctl: Stackctl) -> None:
    """Plans only: the images themselves are built by the other tests."""

    def planned(*words: str) -> str:
        argv = ["make", "--silent", "--dry-run", "images", f"VENV={Path(sys.executable).parent.parent}", *words]
        said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        (line,) = [line for line in said.splitlines() if "/stackctl build" in line]
        return " ".join(line.split()[1:])

    assert planned() == "build"
    assert planned("IMAGES=pytorch tensorflow", "VARIANT=cpu") == "build pytorch tensorflow --variant cpu"
    every = catalog.targets(catalog.load())
    said = stackctl("build", "--dry-run").stdout
    assert len(said.splitlines()) == sum(target.image.default for target in every)


def test_a_build_says_first_what_it_may_take(image: str, stackctl: Stackctl) -> None:
    there = stackctl("build", "pytorch", "--variant", "cpu")
    assert "to download" not in there.stderr, "it was built from these locks"
    env = {"STACK_IMAGE_PREFIX": f"{PREFIX}first-"}
    try:
        first = stackctl("build", "pytorch", "--variant", "cpu", env=env)
        said = first.stderr.splitlines()[0]
        assert re.fullmatch(
            rf"{PREFIX}first-pytorch:cpu: up to \d+ MB of packages to download, up to \d\.\d GB of disk", said
        )
    finally:
        subprocess.run(
            ["docker", "image", "rm", "--force", f"{PREFIX}first-pytorch:cpu"], capture_output=True, check=False
        )
