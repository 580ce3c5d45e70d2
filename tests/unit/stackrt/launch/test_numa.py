from pathlib import Path

import pytest

from stackrt.launch import numa

TWO = {"0000:3b:00.0": ("0", "0-3,8-11"), "0000:af:00.0": ("1", "4-7,12-15")}
ONE = {"0000:3b:00.0": ("-1", "0-15"), "0000:af:00.0": ("-1", "0-15")}


def machine(folder: Path, devices: dict[str, tuple[str, str]]) -> Path:
    for bus_id, (node, cpus) in devices.items():
        place = folder / "bus/pci/devices" / bus_id
        place.mkdir(parents=True)
        (place / "numa_node").write_text(f"{node}\n")
        (place / "local_cpulist").write_text(f"{cpus}\n")
    return folder


def test_each_rank_keeps_to_the_cpus_near_its_gpu(tmp_path: Path) -> None:
    system = machine(tmp_path, TWO)
    near, far = {0, 1, 2, 3, 8, 9, 10, 11}, {4, 5, 6, 7, 12, 13, 14, 15}
    assert numa.plan(list(TWO), range(16), system) == [near, far]
    assert numa.plan([*TWO][::-1], range(16), system) == [far, near], "in the order of CUDA_VISIBLE_DEVICES"
    assert numa.plan(list(TWO), [2, 3, 4, 5], system) == [{2, 3}, {4, 5}], "of what a cpuset leaves"


@pytest.mark.parametrize(
    ("devices", "allowed"),
    [(ONE, range(16)), ({}, range(16)), (TWO, [20, 21]), ({"0000:3b:00.0": ("0", "0-15")}, range(16))],
    ids=["one node", "no such device", "a cpuset elsewhere", "all CPUs are near"],
)
def test_where_there_is_nothing_to_choose_ranks_stay_free(
    devices: dict[str, tuple[str, str]], allowed: list[int], tmp_path: Path
) -> None:
    assert not any(numa.plan(list(TWO), allowed, machine(tmp_path, devices)))


@pytest.mark.parametrize("cpus", ["", "x", "3-", "0-3,,5"])
def test_a_list_that_makes_no_sense_is_none(cpus: str, tmp_path: Path) -> None:
    assert numa.near("0000:3b:00.0", machine(tmp_path, {"0000:3b:00.0": ("0", cpus)})) == set()


def test_lists_are_shown_as_the_kernel_has_them() -> None:
    assert numa.shown(numa.parse("0-3,8,10-11")) == "0-3,8,10-11"
    assert numa.shown([]) == ""
