"""Checkpoints: whole or absent, never wrong."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stackrt.train import checkpoint
from stackrt.train.errors import BadInputError, TrainerError


def state(step: int) -> checkpoint.State:
    return {
        "step": step,
        "model": {"w": torch.arange(600, dtype=torch.float32) + step},
        "rng": [{"torch": torch.get_rng_state(), "python": (3, (1, 2), None)}],
        "fingerprint": {"--layers": 2, "--data": "abc"},
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def silent(_line: str) -> None:
    """For reports that a test does not read."""


def test_round_trip_and_plain_torch_load(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "new", 7, state(7), keep=2)
    assert names(tmp_path / "new") == ["step-000007.pt"]
    for loaded in (checkpoint.load(path), torch.load(path, weights_only=True)):
        assert loaded["step"] == 7
        assert torch.equal(loaded["model"]["w"], state(7)["model"]["w"])
        assert loaded["rng"][0]["python"] == (3, (1, 2), None)


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 10, 1_000_000):
        checkpoint.save(tmp_path, step, state(step), keep=2)
    assert names(tmp_path) == ["step-000010.pt", "step-1000000.pt"]
    found = checkpoint.newest(tmp_path, silent)
    assert found
    assert found[1]["step"] == 1_000_000


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, state(1), keep=1)
    whole = path.read_bytes()
    places = {*range(0, len(whole), 97), *range(200), *range(len(whole) - 200, len(whole))}
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(checkpoint.Damaged):
            checkpoint.load(path)
    path.write_bytes(whole)
    assert checkpoint.load(path)["step"] == 1


def test_a_cut_anywhere_is_found(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, state(1), keep=1)
    whole = path.read_bytes()
    lengths = {*range(0, len(whole), 211), *range(200), *range(len(whole) - 200, len(whole))}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        with pytest.raises(checkpoint.Damaged):
            checkpoint.load(path)
    for wrong in (whole + b"\0", whole + whole, b"x" + whole, whole[:100] + whole[200:]):
        path.write_bytes(wrong)
        with pytest.raises(checkpoint.Damaged):
            checkpoint.load(path)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, state(1), keep=1)
    path.write_bytes(path.read_bytes().replace(b"stack-checkpoint 0001", b"stack-checkpoint 0002"))
    with pytest.raises(checkpoint.Damaged, match="format 2"):
        checkpoint.load(path)


def test_newest_refuses_by_name_and_takes_the_one_before(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, state(step), keep=3)
    (tmp_path / "step-000015.pt").write_bytes(b"")
    os.truncate(tmp_path / "step-000010.pt", 100)
    said: list[str] = []
    found = checkpoint.newest(tmp_path, said.append)
    assert found
    assert found[0].name == "step-000005.pt"
    assert ["step-000015.pt refused" in said[0], "step-000010.pt refused" in said[1]] == [True, True]
    assert names(tmp_path) == ["step-000005.pt", "step-000010.pt.bad", "step-000015.pt.bad"]


def test_none_when_nothing_is_there(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "absent", silent) is None


def test_named_errors(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, state(1), keep=1)
    os.truncate(path, 50)
    with pytest.raises(BadInputError, match=r"step-000001\.pt: refused"):
        checkpoint.named(path)
    with pytest.raises(BadInputError, match="No such file"):
        checkpoint.named(tmp_path / "absent.pt")
    with pytest.raises(BadInputError, match="Is a directory"):
        checkpoint.named(tmp_path)


def test_another_run_is_named_setting_by_setting(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.pt"
    checkpoint.same_run(path, state(1), {"--layers": 2, "--data": "abc"})
    with pytest.raises(BadInputError) as caught:
        checkpoint.same_run(path, state(1), {"--layers": 3, "--data": "other", "WORLD_SIZE": 4})
    message = str(caught.value)
    assert all(part in message for part in ("--layers was 2, is 3", "--data gives another text", "WORLD_SIZE"))


def test_tidy_removes_left_overs_and_moves_later_steps_away(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, state(step), keep=3)
    (tmp_path / ".step-000020.pt.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    checkpoint.tidy(tmp_path, 10, silent)
    assert names(tmp_path) == ["notes.txt", "step-000005.pt", "step-000010.pt", "step-000015.pt.old"]


class Disk:
    """Fails the n-th call of one file operation."""

    def __init__(self, fail_at: int) -> None:
        self.left = fail_at

    def __call__(self, *_args: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("fail_at", [1, 2, 5, 9, 15])
def test_a_full_disk_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int) -> None:
    checkpoint.save(tmp_path, 5, state(5), keep=2)
    write, disk = checkpoint._Hashing.write, Disk(fail_at)

    def failing(self: checkpoint._Hashing, data: bytes) -> int:
        monkeypatch.setattr(self, "_file", Failing(self._file, disk))
        return write(self, data)

    class Failing:
        def __init__(self, file: Any, check: Disk) -> None:
            self.inner: Any = file.inner if isinstance(file, Failing) else file
            self._check = check

        def write(self, data: bytes) -> int:
            self._check()
            return int(self.inner.write(data))

    monkeypatch.setattr(checkpoint._Hashing, "write", failing)
    with pytest.raises(TrainerError, match=r"step-000010\.pt.*No space left.*step 5"):
        checkpoint.save(tmp_path, 10, state(10), keep=2)
    assert names(tmp_path) == ["step-000005.pt"]
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "step-000005.pt")["step"] == 5


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    owner: Any = os if operation == "fsync" else Path
    monkeypatch.setattr(owner, operation, Disk(1))
    with pytest.raises(TrainerError, match="no earlier checkpoint"):
        checkpoint.save(tmp_path, 10, state(10), keep=2)
    assert names(tmp_path) == []


def test_the_name_appears_only_after_the_content_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(handle: int) -> None:
        calls.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "fsync file")  # noqa: PTH112
        fsync(handle)

    def noting_replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    checkpoint.save(tmp_path, 1, state(1), keep=1)
    assert calls == ["fsync file", "rename", "fsync folder"]


def test_an_unreadable_folder_is_not_an_empty_one(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, state(1), keep=1)
    path.unlink()
    path.mkdir()
    with pytest.raises(BadInputError, match="Is a directory"):
        checkpoint.newest(tmp_path, silent)
    shutil.rmtree(path)
