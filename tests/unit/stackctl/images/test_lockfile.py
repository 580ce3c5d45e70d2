from __future__ import annotations

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
