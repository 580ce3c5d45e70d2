from __future__ import annotations

import re
from pathlib import Path

import pytest

from stackctl import __version__, assets
from stackctl.engines import image_registry
from stackctl.errors import CommandFailed, InvalidInput, JobFailed, MissingHere
from stackctl.images import catalog, publish
from stackctl.images.build import Pushed
from stackctl.images.settings import Settings, base_image

TARGET = catalog.targets(catalog.load(), "pytorch", "cpu")[0]
DIGEST = "sha256:" + "a" * 64


def test_a_name_holds_version_variant_and_lock() -> None:
    name = publish.name(TARGET, "registry.example:5000/team", assets.images_dir())
    assert re.fullmatch(rf"registry\.example:5000/team/pytorch:{re.escape(__version__)}-cpu-[0-9a-f]{{12}}", name)
    assert Pushed(name, DIGEST, provenance=False, new=True).pinned == f"registry.example:5000/team/pytorch@{DIGEST}"


@pytest.mark.parametrize(
    "place", ["https://registry.example", "Registry/team", "registry.example/a:1", "a b", "", "-x"]
)
def test_what_is_no_place_in_a_registry_is_refused(place: str) -> None:
    with pytest.raises(InvalidInput, match="is no place for images in a registry"):
        publish.check([], place)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("ERROR: failed to do request: dial tcp 127.0.0.1:9: connect: connection refused", MissingHere),
        ("dial tcp: lookup registry.example: no such host", MissingHere),
        ("unauthorized: authentication required", JobFailed),
        ("denied: requested access to the resource is denied", JobFailed),
    ],
)
def test_a_registrys_refusal_names_it_and_what_to_do(said: str, kind: type[Exception]) -> None:
    error = image_registry.explain(CommandFailed(["docker"], 1, f"noise\n{said}\n"), "registry.example/team/pytorch:1")
    assert type(error) is kind
    assert "the registry registry.example does not " in error.message
    assert error.hint


def test_a_pinned_base_is_taken_by_digest_but_offline(tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_text((assets.images_dir() / "catalog.toml").read_text())
    (tmp_path / "templates").symlink_to(assets.images_dir() / "templates")
    (tmp_path / "locks").mkdir()
    lock = tmp_path / "locks" / catalog.BASES_LOCK
    lock.write_text(f'[bookworm]\nimage = "debian:bookworm-slim"\ndigest = "{DIGEST}"\n[trixie]\nimage = "other"\n')
    rows = catalog.load(tmp_path / "catalog.toml")
    target = catalog.targets(rows, "pytorch", "cpu")[0]
    assert base_image(target, Settings()) == f"debian:bookworm-slim@{DIGEST}"
    mirror = Settings(base_registry="mirror.example/library")
    assert base_image(target, mirror) == f"mirror.example/library/debian:bookworm-slim@{DIGEST}"
    assert base_image(target, Settings(offline=True)) == "debian:bookworm-slim"
    assert rows.bases["trixie"].pinned == "debian:trixie-slim", "the digest was of another image"
    lock.write_text("not TOML")
    with pytest.raises(InvalidInput, match=r"bases\.toml: cannot be read"):
        catalog.load(tmp_path / "catalog.toml")
