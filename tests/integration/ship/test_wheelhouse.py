"""`stackctl wheelhouse`, and a build without any network from what it collected."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stackctl.engines.file_lock import held
from stackctl.images import lockfile
from tests.integration.ship.conftest import IMAGE, AirGap, Checkout

pytestmark = pytest.mark.needs("docker", "index")


def test_it_says_first_what_it_fetches_and_keeps_what_is_there(checkout: Checkout, house: tuple[Path, str]) -> None:
    folder, said = house
    assert re.match(r"small-cpu: \d+ files to fetch, [1-9]\d* MB\n", said)
    names = {path.name for path in folder.iterdir()}
    for name in ("small-cpu.framework.txt", "small-cpu.txt", "tools.txt"):
        pins = lockfile.parse((checkout.root / "images/locks" / name).read_text())
        assert pins
        assert lockfile.lacking(pins, folder) == []
    assert not [name for name in names if name.endswith(".part")]
    assert list(folder.glob("debs/small-cpu/tini_*.deb"))
    again = checkout.stackctl("wheelhouse", "small", str(folder))
    assert again.stderr == "small-cpu: 0 files to fetch, 0 MB\n"
    assert {path.name for path in folder.iterdir()} == names


def test_a_file_that_was_changed_is_fetched_again(checkout: Checkout, house: tuple[Path, str], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(house[0], tmp_path / "house", copy_function=os.link))
    wheel = next(copy.glob("iniconfig-*.whl"))
    right = wheel.read_bytes()
    wheel.unlink()
    wheel.write_bytes(right[:-1] + b"!")
    again = checkout.stackctl("wheelhouse", "small", str(copy), "--wheels-only")
    assert again.returncode == 0, again.stderr
    assert "small-cpu: 1 files to fetch" in again.stderr
    assert wheel.read_bytes() == right


def test_one_at_a_time_fills_a_folder(checkout: Checkout, house: tuple[Path, str]) -> None:
    heard = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with held(house[0], heard.set):
            second = pool.submit(checkout.stackctl, "wheelhouse", "small", str(house[0]), "--wheels-only")
            with pytest.raises(TimeoutError):
                second.result(3)
        done = second.result()
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"waiting for another stackctl that fills {house[0]}\n")
    assert not heard.is_set()


@pytest.mark.needs("registry", "root", "linux")
def test_an_engine_without_a_network_builds_from_it_alone(
    checkout: Checkout, house: tuple[Path, str], tmp_path: Path, air_gap: AirGap, registry: Callable[..., str]
) -> None:
    """Its store is empty and nothing is in reach: neither a cache nor an index nor a mirror can help.

    The engine has containerd's store, so what it pushes carries provenance.
    """
    copy = Path(shutil.copytree(house[0], tmp_path / "house", copy_function=os.link))
    words = ["build", "--wheelhouse", str(copy), "--offline"]

    def build(*more: str) -> subprocess.CompletedProcess[str]:
        return checkout.stackctl(*words, *more, inside=air_gap.inside, DOCKER_HOST=air_gap.docker)

    lock = checkout.root / "images/locks/small-cpu.framework.txt"
    wheel = next(copy.glob("iniconfig-*.whl"))
    right = wheel.read_bytes()
    wheel.unlink()
    lacking = build()
    assert lacking.returncode == 3
    assert f"{copy}: lacks iniconfig 2.3.0 of small-cpu" in lacking.stderr

    wheel.write_bytes(next(copy.glob("packaging-*.whl")).read_bytes())
    wrong = build()
    assert wrong.returncode == 1
    assert f"{lock}:{lockfile.line_of(lock.read_text(), 'iniconfig')}: " in wrong.stderr, wrong.stderr
    assert "a file of iniconfig has another hash than the lock" in wrong.stderr
    docker = ["docker", "--host", air_gap.docker]
    listed = subprocess.run([*docker, "image", "ls", "--quiet", IMAGE], capture_output=True, text=True, check=True)
    assert listed.stdout == "", "no image of that name"

    wheel.write_bytes(right)
    address = registry(inside=air_gap.inside)
    done = build("--push", f"{address}/team", "--json")
    assert done.returncode == 0, done.stderr
    run = [*docker, "run", "--rm", "--network", "none", IMAGE, "python", "-c", "import iniconfig, packaging, stackrt"]
    subprocess.run(run, check=True, timeout=60)
    pushed = json.loads(done.stdout)[0]["pushed"]
    assert (pushed["provenance"], pushed["new"]) == (True, True)
    again = build("--push", f"{address}/team")
    assert again.returncode == 0, again.stderr
    assert "there already, with provenance" in again.stdout


def test_offline_needs_a_wheelhouse(checkout: Checkout) -> None:
    refused = checkout.stackctl("build", "--offline", STACK_WHEELHOUSE="")
    assert refused.returncode == 2
    assert "--offline: needs a wheelhouse" in refused.stderr
