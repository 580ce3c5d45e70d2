from __future__ import annotations

import msgspec
import pytest

from stackctl import assets
from stackctl.images import catalog, lock_list
from stackctl.images.lock_list import TOOLS, lock_of, locks_of


def files(target: catalog.Target) -> list[str]:
    return [lock.file for lock in locks_of(target)]


def test_an_image_has_a_lock_a_layer_and_one_for_development() -> None:
    (target,) = catalog.targets(catalog.load(), "pytorch", "cpu")
    assert files(target) == ["pytorch-cpu.framework.txt", "pytorch-cpu.txt", "pytorch-cpu.devel.txt"]
    assert [lock.kind for lock in locks_of(target)] == ["framework", "packages", "devel"]
    assert [lock.installed for lock in locks_of(target)] == [True, True, False]
    assert lock_of(target, "packages").file == "pytorch-cpu.txt"


def test_a_build_fetches_what_its_image_holds_and_the_tools() -> None:
    (target,) = catalog.targets(catalog.load(), "pytorch", "cpu")
    assert lock_list.fetched(target) == [*files(target)[:-1], TOOLS]
    assert lock_list.fetched(msgspec.structs.replace(target, development=True)) == [*files(target), TOOLS]


def test_an_image_with_horovod_has_two_more_locks() -> None:
    (target,) = catalog.targets(catalog.load(), "horovod-pytorch", "cpu")
    assert files(target) == [
        "horovod-pytorch-cpu.framework.txt",
        "horovod-pytorch-cpu.txt",
        "horovod-pytorch-cpu.horovod.txt",
        "horovod-pytorch-cpu.builder.txt",
        "horovod-pytorch-cpu.devel.txt",
    ]
    assert [lock.file for lock in locks_of(target) if lock.installed] == files(target)[:-2]
    assert lock_list.fetched(target) == [*files(target)[:-1], TOOLS]


def test_an_image_with_source_archives_has_two_more_locks() -> None:
    (target,) = catalog.targets(catalog.load(), "tensorflow", "cpu")
    assert files(target) == [
        "tensorflow-cpu.framework.txt",
        "tensorflow-cpu.txt",
        "tensorflow-cpu.sources.txt",
        "tensorflow-cpu.wheels.txt",
        "tensorflow-cpu.devel.txt",
    ]
    assert [lock.file for lock in locks_of(target) if lock.installed] == files(target)[:-2]
    assert lock_list.fetched(target) == [*files(target)[:-1], TOOLS]
    assert [pin.name for pin in lock_list.pins_of(target, assets.images_dir(), "sources")] == ["promise"]
    assert target.framework_package == "tensorflow-cpu"


@pytest.mark.parametrize("name", ["horovod-pytorch", "horovod-tensorflow"])
def test_compiling_for_a_gpu_takes_one_more_lock(name: str) -> None:
    (target,) = catalog.targets(catalog.load(), name, "cuda")
    toolkit = lock_of(target, "toolkit")
    assert toolkit.file in files(target)
    assert toolkit.file == f"{name}-cuda.toolkit.txt"
    assert target.toolkit is not None
    assert toolkit.requirements == target.toolkit.packages
    assert not toolkit.installed
