from __future__ import annotations

import msgspec
import pytest

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
    (target,) = catalog.targets(catalog.load(), "horovod-tensorflow", "cpu")
    assert files(target) == [
        "horovod-tensorflow-cpu.framework.txt",
        "horovod-tensorflow-cpu.txt",
        "horovod-tensorflow-cpu.horovod.txt",
        "horovod-tensorflow-cpu.builder.txt",
        "horovod-tensorflow-cpu.devel.txt",
    ]
    assert [lock.file for lock in locks_of(target) if lock.installed] == files(target)[:-2]
    assert lock_list.fetched(target) == [*files(target)[:-1], TOOLS]
    assert target.framework_package == "tensorflow-cpu"


@pytest.mark.parametrize("name", ["horovod-pytorch", "horovod-tensorflow"])
def test_compiling_for_a_gpu_takes_one_more_lock(name: str) -> None:
    (target,) = catalog.targets(catalog.load(), name, "cuda")
    toolkit = lock_of(target, "toolkit")
    assert files(target)[-2:] == [toolkit.file, f"{name}-cuda.devel.txt"]
    assert toolkit.file == f"{name}-cuda.toolkit.txt"
    assert target.toolkit is not None
    assert toolkit.requirements == target.toolkit.packages
    assert not toolkit.installed
