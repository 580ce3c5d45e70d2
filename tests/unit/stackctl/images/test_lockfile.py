from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.images import lockfile

TEXT = """\
# a comment
torch==2.13.0+cpu \\
    --hash=sha256:{a}
anyio==4.16.0 ; sys_platform != 'emscripten' \\
    --hash=sha256:{b} \\
    --hash=sha256:{c}
    # via httpx
tqdm==4.70.1 \\
    --hash=sha256:{a}
""".format(a="a" * 64, b="b" * 64, c="c" * 64)


def test_parse_reads_names_versions_markers_and_hashes() -> None:
    torch, anyio, tqdm = lockfile.parse(TEXT)
    assert (torch.name, torch.version, torch.marker) == ("torch", "2.13.0+cpu", "")
    assert (anyio.name, anyio.version, anyio.marker) == ("anyio", "4.16.0", "sys_platform != 'emscripten'")
    assert anyio.hashes == ("sha256:" + "b" * 64, "sha256:" + "c" * 64)
    assert tqdm.version == "4.70.1"


def test_split_takes_the_framework_by_pattern() -> None:
    framework, others = lockfile.split(lockfile.parse(TEXT), ["torch", "nvidia-*"])
    assert [pin.name for pin in framework] == ["torch"]
    assert [pin.name for pin in others] == ["anyio", "tqdm"]


def test_write_then_parse_is_the_same() -> None:
    pins = lockfile.parse(TEXT)
    assert lockfile.parse(lockfile.write(pins, ["header"])) == pins
    assert lockfile.write(pins, ["header"]).startswith("# header\n")


def test_digest_sees_packages_and_not_comments() -> None:
    pins = lockfile.parse(TEXT)
    assert lockfile.digest(lockfile.write(pins, ["one"])) == lockfile.digest(lockfile.write(pins, ["two"]))
    assert lockfile.digest(TEXT) != lockfile.digest(TEXT.replace("4.70.1", "4.70.2"))


@pytest.mark.parametrize(
    ("file", "name", "version", "held"),
    [
        ("antlr4-python3-runtime-4.9.3.tar.gz", "antlr4-python3-runtime", "4.9.3", True),
        ("antlr4_python3_runtime-4.9.3.tar.gz", "antlr4-python3-runtime", "4.9.3", True),
        ("ruamel.yaml-0.18.0-py3-none-any.whl", "ruamel-yaml", "0.18.0", True),
        ("MarkupSafe-3.0.3-cp311-cp311-manylinux_2_17_x86_64.whl", "markupsafe", "3.0.3", True),
        ("torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", "torch", "2.13.0+cpu", True),
        ("torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", "torch", "2.13.0", False),
        ("antlr4-python3-runtime-4.9.3.tar.gz", "runtime", "4.9.3", False),
        ("odd.whl", "odd", "1", False),
        ("readme.txt", "readme", "1", False),
    ],
)
def test_what_a_folder_holds(file: str, name: str, version: str, held: bool, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    pins = lockfile.parse(f"{name}=={version} \\\n    --hash=sha256:{'0' * 64}")
    assert [pin.name for pin in lockfile.lacking(pins, tmp_path)] == ([] if held else [name])
