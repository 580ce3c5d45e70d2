from __future__ import annotations

from pathlib import Path

import pytest

from stackrt.checks import wheels
from stackrt.checks.cuda import is_cubin, judge_architectures, loaded, same_version, version


@pytest.mark.parametrize(
    ("reported", "wheel", "same"),
    [
        ("9.20.0", "9.20.0.48", True),
        ("13.0", "13.0.96", True),
        ("9.20.0", "9.2.0.48", False),
        ("2.29.7", "2.29.7", True),
        ("12.9", "13.0.1", False),
    ],
)
def test_versions_are_compared_as_far_as_both_are_told(reported: str, wheel: str, same: bool) -> None:
    assert same_version(reported, wheel) is same


@pytest.mark.parametrize(("flag", "found"), [("sm_80", (8, 0)), ("sm_90a", (9, 0)), ("compute_120", (12, 0))])
def test_architecture_of_a_flag(flag: str, found: tuple[int, int]) -> None:
    assert version(flag) == found


def test_machine_code_runs_on_later_minor_versions_only_and_ptx_on_all_that_is_later() -> None:
    assert judge_architectures(["sm_80"], ["8.6"]).status == "pass"
    assert judge_architectures(["sm_86"], ["8.0"]).status == "fail"
    assert judge_architectures(["sm_80"], ["9.0"]).status == "fail"
    late = judge_architectures(["sm_80", "compute_80"], ["8.0", "9.0"])
    assert (late.status, late.figures["from_ptx"]) == ("pass", ["9.0"])


def test_a_memory_map_names_each_file_once() -> None:
    maps = (
        "7f01-7f02 r--p 00000000 fe:00 12   /site/nvidia/libcudnn.so.9\n"
        "7f02-7f03 r-xp 00001000 fe:00 12   /site/nvidia/libcudnn.so.9\n"
        "7f04-7f05 r-xp 00000000 fe:00 13   /a folder/libnccl.so.2 (deleted)\n"
        "7f06-7f07 rw-p 00000000 00:00 0    [heap]\n"
        "7f08-7f09 rw-p 00000000 00:00 0\n"
    )
    assert loaded(maps) == [Path("/site/nvidia/libcudnn.so.9"), Path("/a folder/libnccl.so.2")]


def test_a_cubin_is_an_elf_file_for_nvidia() -> None:
    header = b"\x7fELF" + bytes(14)
    assert is_cubin(header + (190).to_bytes(2, "little"))
    assert not is_cubin(header + (62).to_bytes(2, "little"))
    assert not is_cubin(b"")


def test_only_the_excused_reason_is_excused() -> None:
    bootstrap = Path("nvshmem_bootstrap_mpi.so.3")
    assert wheels.may_fail(bootstrap, "libmpi.so.40: cannot open shared object file")
    assert not wheels.may_fail(bootstrap, "libnccl.so.2: cannot open shared object file")
    assert not wheels.may_fail(Path("libcudnn.so.9"), "libmpi.so.40: cannot open shared object file")
    assert wheels.may_fail(Path("libcufile.so.0"), "libcuda.so.1: cannot open shared object file")
