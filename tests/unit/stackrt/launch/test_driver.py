from __future__ import annotations

import json
from pathlib import Path

import pytest

from stackrt.launch import driver
from stackrt.launch.driver import COMPAT, Choice, choose

CUDA13 = {"cuda": "13.0", "minimum_driver": "580"}


@pytest.mark.parametrize(
    ("facts", "host", "compat"),
    [
        (CUDA13, "580.65.06", ""),
        (CUDA13, "580.65.06", "595.10"),
        (CUDA13, "1000.1", ""),
        ({"cuda": "12.9", "minimum_driver": "525"}, "550.54.15", ""),
        ({"cuda": "", "minimum_driver": ""}, "470.10", ""),
        ({}, "470.10", ""),
        (CUDA13, "", "595.10"),
    ],
    ids=["exact", "compat stays off", "four digits", "CUDA 12", "CPU image", "no image", "NVML does not tell"],
)
def test_the_hosts_own_driver_is_used(facts: dict[str, str], host: str, compat: str) -> None:
    assert choose(facts, host, compat) == Choice()


def test_an_older_driver_is_refused_in_a_sentence() -> None:
    assert choose(CUDA13, "550.54.15", "").problem == (
        "CUDA 13.0 of this image needs NVIDIA driver 580 or newer, this host has 550.54.15; update the driver, "
        "or use an image with an older CUDA"
    )


def test_compatibility_libraries_are_used_where_the_driver_is_older() -> None:
    assert choose(CUDA13, "550.54.15", "580.95.05") == Choice(folder=str(COMPAT))


def test_compatibility_libraries_that_are_too_old_help_nobody() -> None:
    choice = choose(CUDA13, "535.1", "550.54.15")
    assert choice.folder == ""
    assert choice.problem is not None
    assert "has 550.54.15, which is too old as well" in choice.problem


def test_the_version_of_compatibility_libraries_is_in_their_name(tmp_path: Path) -> None:
    assert driver.compat_version(tmp_path / "absent") == ""
    (tmp_path / "libcuda.so.580.95.05").touch()
    assert driver.compat_version(tmp_path) == "", "CUDA programs open libcuda.so.1"
    (tmp_path / "libcuda.so.1").symlink_to("libcuda.so.580.95.05")
    assert driver.compat_version(tmp_path) == "580.95.05"


def test_an_image_says_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "image.json"
    assert driver.image_facts(path) == {}
    path.write_text(json.dumps({"schema": 1, **CUDA13}))
    assert choose(driver.image_facts(path), "570.1", "").problem
