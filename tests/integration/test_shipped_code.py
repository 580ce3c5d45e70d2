"""A working folder as `submit --code` packs it."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from stackctl.engines import archive, process
from stackctl.errors import InvalidInput


def pack(folder: Path, *, everything: bool = False) -> archive.Packed:
    return archive.pack(folder, archive.look(folder, everything=everything))


def names(packed: archive.Packed) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed.text))) as found:
        return {member.name: member for member in found.getmembers()}


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "mine.py").write_text("print(1)\n")
    (tmp_path / "pkg" / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "pkg" / "run.sh").chmod(0o750)
    (tmp_path / "latest").symlink_to("pkg/run.sh")
    return tmp_path


def test_every_file_is_shipped_where_there_is_no_repository(folder: Path) -> None:
    packed = pack(folder)
    assert sorted(names(packed)) == ["latest", "mine.py", "pkg/run.sh"]
    assert names(packed)["pkg/run.sh"].mode == 0o755
    assert names(packed)["latest"].linkname == "pkg/run.sh"


def test_in_a_repository_what_git_tracks_is_shipped_and_the_rest_is_named(folder: Path) -> None:
    git(folder, "init", "--quiet")
    (folder / ".gitignore").write_text("*.log\n")
    (folder / "train.log").write_text("")
    git(folder, "add", ".gitignore", "mine.py")
    assert sorted(names(pack(folder))) == [".gitignore", "mine.py"]
    assert archive.look(folder).left_out == ("latest", "pkg/run.sh")
    (folder / "mine.py").unlink()
    assert sorted(names(pack(folder))) == [".gitignore"]


def test_a_git_hook_s_repository_is_not_asked_about_another(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git sets GIT_DIR for its hooks: what is submitted in one would be what that repository tracks."""
    other = tmp_path_factory.mktemp("other")
    for where, name in ((folder, "mine.py"), (other, "latest")):
        git(where, "init", "--quiet")
        (where / name).touch()
        git(where, "add", name)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert list(archive.look(folder).sizes) == ["mine.py"]


def test_a_folder_that_cannot_be_read_is_not_left_out_in_silence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def scandir(path: str) -> object:  # root may read all
        if Path(path).name == "pkg":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        with pytest.raises(InvalidInput, match="pkg: Permission denied"):
            archive.look(folder)


def test_what_git_keeps_out_is_not_shipped_where_git_cannot_tell_what_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another owner, as in a container or on a shared disk; or on a machine without git; or a damaged one."""
    git(folder, "init", "--quiet")
    (folder / ".gitignore").write_text(".env\n")
    (folder / ".env").write_text("KEY=1\n")
    git(folder, "add", ".")
    everything = [".env", ".gitignore", "latest", "mine.py", "pkg/run.sh"]

    def refused(where: Path) -> str:
        with pytest.raises(InvalidInput) as error:
            pack(where)
        assert "; or --code-all ships every file but git's own" in error.value.hint
        assert sorted(names(pack(where, everything=True))) == (everything if where == folder else ["run.sh"])
        return f"{error.value.message} {error.value.hint}"

    with monkeypatch.context() as patch:
        patch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        for where in (folder, folder / "pkg"):
            said = refused(where)
            assert "detected dubious ownership" in said
            assert f"if you trust its owner: git config --global --add safe.directory {folder.resolve()}" in said
    with monkeypatch.context() as patch:
        patch.setattr(process, "find", lambda program, _env=None: f"/absent/{program}")
        assert "is a git repository, and git is not installed here" in refused(folder)
    (folder / ".git" / "HEAD").unlink()
    assert "not a git repository" in refused(folder)
    assert list(archive.look(folder, everything=True).sizes) == everything


def test_repositories_within_a_folder_are_shipped_without_what_is_gits_own(folder: Path) -> None:
    git(folder / "pkg", "init", "--quiet")
    assert sorted(names(pack(folder))) == ["latest", "mine.py", "pkg/run.sh"]


def test_submodules_are_shipped_and_one_that_is_not_there_is_named(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    library = tmp_path_factory.mktemp("library")
    (library / "lib.py").write_text("")
    as_me = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always"]
    for words in (["init", "--quiet"], ["add", "."], [*as_me, "commit", "--quiet", "--message", "a"]):
        git(library, *words)
    git(folder, "init", "--quiet")
    git(folder, *as_me, "submodule", "add", "--quiet", str(library), "there")
    git(folder, *as_me, "submodule", "add", "--quiet", str(library), "absent")
    git(folder, "submodule", "deinit", "--force", "absent")
    found = archive.look(folder)
    assert list(found.sizes) == [".gitmodules", "there/lib.py"]
    assert found.absent == ("absent",)


def test_the_same_files_give_the_same_bytes(folder: Path) -> None:
    first = pack(folder)
    os.utime(folder / "mine.py", (1, 1))
    assert pack(folder) == first
    (folder / "mine.py").write_text("print(2)\n")
    assert pack(folder).sha256 != first.sha256


def test_a_large_folder_is_refused_with_its_largest_files(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(os.urandom(archive.MOST_BYTES + 1))
    with pytest.raises(archive.TooLarge, match=r"900 KiB at most; the largest are weights.bin \(900 KiB\)"):
        pack(folder)
    (folder / "weights.bin").unlink()
    with (folder / "sparse").open("wb") as file:
        file.truncate(archive.MOST_UNPACKED + 1)
    with pytest.raises(InvalidInput, match="256 MiB unpacked"):
        pack(folder)


def test_what_cannot_be_shipped_is_an_error(folder: Path, tmp_path: Path) -> None:
    (folder / "round").symlink_to("round")  # leads nowhere, there as here
    assert names(pack(folder))["round"].linkname == "round"
    (folder / "out").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="out is a link to /etc/passwd"):
        pack(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidInput, match="nothing to ship"):
        pack(empty)
