from __future__ import annotations

import re

from stackctl.images import catalog, lock_list, lockfile, sums
from stackctl.images.forecast import Forecast, in_all
from tests.commands import ROOT

PLAIN = Forecast("stack-pytorch:cpu", {"torch==2.13.0": 190_000_000, "numpy==2.4.6": 16_000_000}, {"fw": 2e9, "p": 1e9})
WITH = Forecast(
    "stack-horovod-pytorch:cpu", {"torch==2.13.0": 190_000_000, "psutil==7.2.2": None}, {"fw": 2e9, "h": 5e8}
)


def test_one_image_says_what_it_downloads_and_takes() -> None:
    assert str(PLAIN) == "stack-pytorch:cpu: up to 206 MB of packages to download, up to 3.0 GB of disk"
    assert str(WITH).endswith("190 MB of packages to download and 1 files of unknown size, up to 2.5 GB of disk")
    assert "no packages to download" in str(Forecast("stack-pytorch:cpu", {}, {"fw": 1.0}))


def test_what_two_images_share_is_counted_once() -> None:
    assert in_all([PLAIN], None) == []
    (line,) = in_all([PLAIN, WITH], None)
    assert line == "in all: up to 206 MB of packages to download and 1 files of unknown size, up to 3.5 GB of disk"


def test_a_short_disk_is_noted() -> None:
    assert in_all([PLAIN], 4 * 10**9) == []
    (note,) = in_all([PLAIN], 10**9)
    assert note.startswith("note: the engine's disk has 1.0 GB free, which may not be enough")


def test_the_documented_downloads_are_those_of_the_locks() -> None:
    locks = ROOT / "images" / "locks"

    def told(target: catalog.Target) -> str:
        known = sums.sizes((locks / target.sums).read_text()) | sums.sizes((locks / "tools.sums").read_text())
        pins = {
            (pin.name, pin.version): pin
            for name in lock_list.fetched(target)
            for pin in lockfile.parse((locks / name).read_text())
        }
        size = sum(known[pin.digest] for pin in pins.values())
        return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

    table = re.findall(
        r"^\| `([\w-]+)` \| (\d+ MB) \| ([\d.]+ GB) \|$", (ROOT / "docs" / "images.md").read_text(), re.M
    )
    rows = [target for target in catalog.targets(catalog.load()) if target.image.default]
    assert {(name, size) for name, *both in table for size in both} == {(row.name, told(row)) for row in rows}
