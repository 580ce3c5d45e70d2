from pathlib import Path

import pytest

from stackrt.launch import cpus
from stackrt.launch.cpus import Cpus, threads, usable

EIGHT = tuple(range(8))


def machine(folder: Path, cgroup: str, mounts: str, quotas: dict[str, str]) -> Path:
    """A /proc and cgroup folders of a made-up machine; `{top}` in the mounts is where the folders are."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(cgroup)
    (folder / "proc/self/mountinfo").write_text(mounts.format(top=folder / "sys"))
    for name, text in quotas.items():
        path = folder / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "proc"


V1 = (
    "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 31 0:29 {root} {{top}} rw - cgroup cgroup rw,cpu,cpuacct\n"
)
V2 = "32 31 0:29 / {top} rw,nosuid - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("cgroup", "mounts", "quotas", "expected"),
    [
        ("0::/\n", V2, {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", V2, {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", V2, {}, None),
        ("0::/a/b\n", V2, {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b\n", V2, {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 0.5),
        ("0::/../../elsewhere\n", V2, {"cpu.max": "300000 100000"}, 3.0),
        ("4:cpu,cpuacct:/docker/x\n0::/\n", V1.format(root="/docker/x"),
         {"cpu.cfs_quota_us": "100000\n", "cpu.cfs_period_us": "100000\n"}, 1.0),
        ("4:cpu,cpuacct:/docker/x\n0::/\n", V1.format(root="/"),
         {"docker/x/cpu.cfs_quota_us": "-1\n", "docker/x/cpu.cfs_period_us": "100000\n",
          "docker/cpu.cfs_quota_us": "400000\n", "docker/cpu.cfs_period_us": "100000\n"}, 4.0),
        ("", "", {}, None),
    ],
)  # fmt: skip
def test_the_smallest_quota_around_a_process_counts(
    tmp_path: Path, cgroup: str, mounts: str, quotas: dict[str, str], expected: float | None
) -> None:
    found = usable(machine(tmp_path, cgroup, mounts, quotas))
    assert found.quota == expected
    assert bool(found.pool) == (expected is not None)


def test_launchers_below_one_quota_share_it(tmp_path: Path) -> None:
    quotas = {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000", "a/c/cpu.max": "max 100000"}
    one = usable(machine(tmp_path, "0::/a/b", V2, quotas))
    (tmp_path / "proc/self/cgroup").write_text("0::/a/c")
    other = usable(tmp_path / "proc")
    assert one.pool == other.pool != ""


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([(1, Cpus("m", EIGHT))], [8]),
        ([(3, Cpus("m", EIGHT))], [2]),
        ([(16, Cpus("m", EIGHT))], [1]),
        ([(1, Cpus("m", EIGHT))] * 4, [2] * 4),
        ([(1, Cpus("m", EIGHT)), (3, Cpus("m", EIGHT))], [2, 2]),
        ([(2, Cpus("m", EIGHT)), (2, Cpus("n", EIGHT))], [4, 4]),
        ([(1, Cpus("m", EIGHT, 2.0, "q"))], [2]),
        ([(1, Cpus("m", EIGHT, 1.5, "q"))], [1]),
        ([(1, Cpus("m", EIGHT, 0.1, "q"))], [1]),
        ([(1, Cpus("m", EIGHT, 4.0, "q"))] * 2, [2, 2]),
        ([(1, Cpus("m", EIGHT, 4.0, "q")), (1, Cpus("m", EIGHT, 4.0, "r"))], [4, 4]),
        ([(2, Cpus("m", (0, 1, 2, 3))), (2, Cpus("m", (4, 5, 6, 7)))], [2, 2]),
        ([(2, Cpus("m", (0, 1, 2, 3))), (2, Cpus("m", EIGHT))], [1, 2]),
    ],
)
def test_each_rank_gets_its_share(nodes: list[tuple[int, Cpus]], expected: list[int]) -> None:
    assert threads(nodes) == expected


@pytest.mark.parametrize(
    ("cpuinfo", "spins"),
    [
        ("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n", 400),
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\n", 1100),
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n", 700),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", 400),
    ],
)
def test_a_thread_looks_for_its_peers_as_long_on_every_makers_cpu(cpuinfo: str, spins: int, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert cpus.spins(tmp_path) == spins
    assert cpus.spins(tmp_path / "absent") == 400
