from __future__ import annotations

from pathlib import Path

import pytest

from stackctl import assets
from stackctl.errors import MissingHere
from stackctl.images import catalog, lock_list, lockfile, wheelhouse

ZLIB = "a" * 64
URIS = f"""\
'http://mirror.example/pool/zlib1g-dev_1.2.13%2bb1_amd64.deb' zlib1g-dev_1%3a1.2.13+b1_amd64.deb 9163 SHA256:{ZLIB}
NOTE: not a file
"""
INDEX = f"""\
Package: zlib1g-dev
Version: 1:1.2.13+b1
Filename: pool/z/zlib1g-dev_1.2.13+b1_amd64.deb
SHA256: {ZLIB}

Package: other
Filename: pool/o/other_1_amd64.deb
SHA256: {"b" * 64}
"""


def test_debian_packages_are_listed_with_the_archives_names() -> None:
    (file,) = wheelhouse.debian_files(URIS)
    assert (file.name, file.size, file.sha256) == ("zlib1g-dev_1.2.13+b1_amd64.deb", 9163, (ZLIB,))


def test_the_index_of_a_folder_names_its_own_files_only() -> None:
    text = wheelhouse.local_index(INDEX, wheelhouse.debian_files(URIS))
    assert "Filename: ./zlib1g-dev_1.2.13+b1_amd64.deb\n" in text
    assert "other" not in text


@pytest.mark.parametrize("target", catalog.targets(catalog.load()), ids=lambda target: target.key)
def test_debian_packages_of_every_stage_are_found_in_the_dockerfile(target: catalog.Target) -> None:
    found = wheelhouse.apt_packages((assets.images_dir() / "dockerfiles" / target.dockerfile).read_text())
    assert {*target.image.apt, *target.image.compiler, *(target.horovod.apt if target.horovod else ())} <= set(found)
    assert "python3-pip-whl" in found
    assert set(target.devel.apt) <= set(found)


def test_what_an_offline_build_lacks_is_said_before_it_starts(tmp_path: Path) -> None:
    target = catalog.targets(catalog.load(), "pytorch", "cpu")[0]
    with pytest.raises(MissingHere, match=r"lacks torch 2\.13\.0\+cpu, .* more of pytorch-cpu"):
        wheelhouse.check(target, tmp_path)
    for name in lock_list.fetched(target):
        for pin in lockfile.parse((assets.images_dir() / "locks" / name).read_text()):
            (tmp_path / f"{pin.name.replace('-', '_').replace('.', '_')}-{pin.version}-py3-none-any.whl").touch()
    with pytest.raises(MissingHere, match="lacks the Debian packages of pytorch-cpu"):
        wheelhouse.check(target, tmp_path)
    wheelhouse.debs(target, tmp_path).mkdir(parents=True)
    (wheelhouse.debs(target, tmp_path) / "Packages").touch()
    wheelhouse.check(target, tmp_path)


def test_the_mirror_is_the_one_that_apt_asked_and_not_that_of_security() -> None:
    rows = [
        "'http://mirror.example/debian-security/pool/updates/main/o/a.deb' a.deb 1 SHA256:" + "a" * 64,
        "'http://mirror.example/debian/pool/main/t/b.deb' b.deb 1 SHA256:" + "b" * 64,
    ]
    assert wheelhouse.mirror(wheelhouse.debian_files("\n".join(rows))) == "http://mirror.example/debian"


def test_the_package_that_is_unpacked_for_nvcc_is_collected_as_well(tmp_path: Path) -> None:
    (target,) = catalog.targets(catalog.load(), "horovod-tensorflow", "cuda")
    assert target.toolkit is not None
    assert target.toolkit.debian is not None
    (file,) = wheelhouse.unpacked(target, "http://mirror.example/debian")
    assert file.url == f"http://mirror.example/debian/{target.toolkit.debian.path}"
    assert file.sha256 == (target.toolkit.debian.sha256,)
    assert wheelhouse.unpacked(catalog.targets(catalog.load(), "horovod-pytorch", "cuda")[0]) == []
    for name in lock_list.fetched(target):
        for pin in lockfile.parse((assets.images_dir() / "locks" / name).read_text()):
            (tmp_path / f"{pin.name.replace('-', '_').replace('.', '_')}-{pin.version}-py3-none-any.whl").touch()
    with pytest.raises(MissingHere, match=r"lacks nvidia-cuda-toolkit_12\.4\.131.*\.deb"):
        wheelhouse.check(target, tmp_path)
