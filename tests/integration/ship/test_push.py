"""`stackctl build --push` against a registry on this machine."""

from __future__ import annotations

import json
import subprocess
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.engines import image_registry as registries
from tests.integration.ship.conftest import IMAGE, Checkout

pytestmark = [pytest.mark.needs("docker", "index", "registry")]

Registry = Callable[..., str]


def tags(address: str) -> list[str]:
    """The tags that a registry has of the small image."""
    try:
        with urllib.request.urlopen(f"http://{address}/v2/team/small/tags/list", timeout=10) as answer:
            return list(json.load(answer)["tags"] or [])
    except urllib.error.HTTPError:
        return []


def local_names(address: str) -> str:
    argv = ["docker", "image", "ls", "--quiet", "--filter", f"reference={address}/*/*"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_a_name_is_given_once(checkout: Checkout, registry: Registry) -> None:
    address = registry()
    first = checkout.stackctl("build", "--push", f"{address}/team", "--json")
    assert first.returncode == 0, first.stderr
    (built,) = json.loads(first.stdout)
    pushed = built["pushed"]
    version, variant, lock = pushed["name"].removeprefix(f"{address}/team/small:").split("-")
    labels = json.loads(subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=True).stdout)[
        0
    ]["Config"]["Labels"]
    assert (version, variant) == (labels["org.opencontainers.image.version"], "cpu")
    assert lock == labels["io.stackctl.lock"][:12]
    assert tags(address) == [f"{version}-{variant}-{lock}"]
    request = urllib.request.Request(
        f"http://{address}/v2/team/small/manifests/{tags(address)[0]}",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Docker-Content-Digest"] == pushed["digest"]

    again = checkout.stackctl("build", "--push", f"{address}/team")
    assert again.returncode == 0
    assert "there already, without provenance" in again.stdout
    assert f"cosign sign {address}/team/small@{pushed['digest']}" in again.stdout

    checkout.commit("another commit, the same locks")
    other = checkout.stackctl("build", "--push", f"{address}/team")
    assert other.returncode == 4
    assert f"{pushed['name']}: the registry has another image of this name" in other.stderr
    found = registries.look_up(pushed["name"])
    assert found is not None
    assert found.digest == pushed["digest"], "what was there is as it was"
    assert local_names(address) == ""


def test_a_registry_that_does_not_answer_is_told_before_the_build(checkout: Checkout) -> None:
    silent = checkout.stackctl("build", "--push", "127.0.0.1:9/team")
    assert silent.returncode == 3
    assert "the registry 127.0.0.1:9 does not answer: " in silent.stderr
    assert len(silent.stderr.splitlines()) == 2, "no build began"


def test_who_may_not_read_is_told_to_log_in(checkout: Checkout, registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "nobody"
    path.touch()
    address = registry(f"auth: {{htpasswd: {{realm: test, path: '{path}'}}}}\n")
    refused = checkout.stackctl("build", "--push", f"{address}/team")
    assert refused.returncode == 1
    assert f"log in with `docker login {address}`" in refused.stderr


def test_a_push_that_is_refused_leaves_no_name_behind(checkout: Checkout, registry: Registry) -> None:
    address = registry("  maintenance: {readonly: {enabled: true}}\n")
    refused = checkout.stackctl("build", "--push", f"{address}/team")
    assert refused.returncode == 1
    assert f"the registry {address} " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert tags(address) == []
    assert local_names(address) == ""


@pytest.mark.parametrize("place", ["https://registry.example/team", "registry.example/Team", "registry.example/team:1"])
def test_what_is_no_place_in_a_registry_is_refused(place: str, checkout: Checkout) -> None:
    refused = checkout.stackctl("build", "--push", place)
    assert refused.returncode == 2
    assert f"--push {place}: is no place for images" in refused.stderr


def test_base_images_are_pinned_when_a_registry_answers(checkout: Checkout, registry: Registry) -> None:
    address = registry()
    subprocess.run(
        ["docker", "image", "tag", "debian:bookworm-slim", f"{address}/library/debian:bookworm-slim"], check=True
    )
    name = f"{address}/library/debian:bookworm-slim"
    lock = checkout.root / "images/locks/bases.toml"
    try:
        subprocess.run(["docker", "push", "--quiet", name], check=True, capture_output=True)
        env = {"STACK_BASE_REGISTRY": f"{address}/library"}
        assert checkout.stackctl("lock", **env).returncode == 0
        digest = tomllib.loads(lock.read_text())["bookworm"]["digest"]
        assert checkout.stackctl("render").returncode == 0
        recipe = (checkout.root / "images/dockerfiles/small-cpu.Dockerfile").read_text()
        assert f"ARG BASE_IMAGE=debian:bookworm-slim@{digest}\n" in recipe
        assert checkout.stackctl("build", **env).returncode == 0
        said = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=True).stdout
        assert json.loads(said)[0]["Config"]["Labels"]["org.opencontainers.image.base.digest"] == digest

        lock.write_text(lock.read_text().replace(digest, "sha256:" + "0" * 64))
        checkout.stackctl("render")
        absent = checkout.stackctl("build", **env)
        assert absent.returncode == 1
        assert f"the base image {name}@sha256:{'0' * 64} cannot be had" in absent.stderr
        kept = checkout.stackctl("lock", STACK_BASE_REGISTRY="127.0.0.1:9/library")
        assert kept.returncode == 0
        assert "note: debian:bookworm-slim: no digest from a registry" in kept.stderr
        assert "0" * 64 in lock.read_text(), "where no registry answers the digest stays"
    finally:
        lock.unlink(missing_ok=True)
        checkout.stackctl("render")
        subprocess.run(["docker", "image", "rm", name], capture_output=True, check=False)
