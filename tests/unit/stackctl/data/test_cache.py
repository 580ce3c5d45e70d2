from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.data import apt, cache, deb
from stackctl.engines import process
from stackctl.engines.download import Downloader
from stackctl.errors import InvalidInput, JobFailed, MissingHere
from stackrt.pictures import known
from stackrt.pictures.known import Debian, File, Known

CONTENT = {"a.gz": b"pictures", "b.gz": b"labels"}
Edit = Callable[[Path], None]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def a_set(*sources: str, debian: Debian | None = None) -> Known:
    files = tuple(File(name, len(content), (digest(content),)) for name, content in CONTENT.items())
    return Known("set", "A set", "MIT", "", "idx", ("0", "1"), sources, files, debian)


def served(folder: Path) -> str:
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return folder.as_uri()


def package(path: Path, names: list[str]) -> Debian:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for name in names:
            member = tarfile.TarInfo(f"./usr/share/set/{name}")
            member.size = len(CONTENT[name])
            tar.addfile(member, io.BytesIO(CONTENT[name]))
    content = b"!<arch>\n"
    for name, part in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", packed.getvalue())):
        content += f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}".encode() + b"`\n" + part
        content += b"\n" * (len(part) % 2)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return Debian(f"pool/{path.name}", len(content), digest(content), "usr/share/set")


def fetch(one: Known, folder: Path, env: dict[str, str] | None = None, apt_mirror: str = "") -> tuple[Path, list[str]]:
    said: list[str] = []
    return cache.fetch(one, folder, Downloader(), env or {}, apt_mirror, said.append), said


def test_a_set_is_fetched_once(tmp_path: Path) -> None:
    one = a_set(served(tmp_path / "there"))
    folder, said = fetch(one, tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert [line.split(",")[0] for line in said] == ["set: a.gz", "set: b.gz"]
    assert fetch(one, tmp_path / "cache")[1] == []


def test_others_may_read_a_set_whatever_the_umask(tmp_path: Path) -> None:
    """A container reads it as another user."""
    before = os.umask(0o077)
    try:
        folder, _ = fetch(a_set(served(tmp_path / "there")), tmp_path / "cache")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder.parent, folder, *folder.iterdir())}
    assert modes == {"cache": 0o755, "set": 0o755, "a.gz": 0o644, "b.gz": 0o644}


def test_only_what_is_wrong_is_fetched_again(tmp_path: Path) -> None:
    one = a_set(served(tmp_path / "there"))
    folder, _ = fetch(one, tmp_path / "cache")
    (folder / "b.gz").write_bytes(b"lable")
    (wrong,) = cache.wrong(one, tmp_path / "cache")
    assert wrong.path.endswith("b.gz")
    assert "has another hash" in wrong.what
    assert len(fetch(one, tmp_path / "cache")[1]) == 1
    assert cache.wrong(one, tmp_path / "cache") == []


def test_a_mirror_goes_first_and_may_be_a_folder(tmp_path: Path) -> None:
    served(tmp_path / "mirror" / "set")
    _, said = fetch(a_set("http://nowhere.invalid"), tmp_path / "cache", {cache.MIRROR: str(tmp_path / "mirror")})
    assert all("from file://" in line for line in said)


def test_a_source_that_serves_other_files_is_named_and_the_next_is_tried(tmp_path: Path) -> None:
    bad, good = served(tmp_path / "bad"), served(tmp_path / "good")
    (tmp_path / "bad" / "b.gz").write_bytes(b"other")
    folder, said = fetch(a_set(bad, good), tmp_path / "cache")
    assert any(line.startswith("note: ") and "b.gz has another hash than sets.toml" in line for line in said)
    assert (folder / "b.gz").read_bytes() == b"labels"


@pytest.mark.parametrize("odd", ["folder", "link"])
def test_a_mirror_that_cannot_be_read_is_named_and_the_next_is_tried(tmp_path: Path, odd: str) -> None:
    bad, good = served(tmp_path / "bad"), served(tmp_path / "good")
    (tmp_path / "bad" / "a.gz").unlink()
    if odd == "folder":
        (tmp_path / "bad" / "a.gz").mkdir()
    else:
        (tmp_path / "bad" / "a.gz").symlink_to("a.gz")
    folder, said = fetch(a_set(bad, good), tmp_path / "cache")
    assert any(line.startswith(f"note: {bad}: a.gz cannot be read: ") for line in said)
    assert (folder / "a.gz").read_bytes() == b"pictures"


def test_when_no_source_is_right_nothing_wrong_is_kept(tmp_path: Path) -> None:
    bad = served(tmp_path / "bad")
    (tmp_path / "bad" / "b.gz").write_bytes(b"other")
    with pytest.raises(JobFailed, match=r"no source gives set: b\.gz has another hash"):
        fetch(a_set(bad), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "set").iterdir()] == ["a.gz"]


def test_debians_package_is_the_last_source(tmp_path: Path) -> None:
    made = package(tmp_path / "debian" / "pool" / "set.deb", ["a.gz", "b.gz"])
    one = a_set((tmp_path / "gone").as_uri(), debian=made)
    folder, _ = fetch(one, tmp_path / "cache", apt_mirror=(tmp_path / "debian").as_uri())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


APT = """'http://mirror.example/debian-security/dists/bookworm-security/InRelease' a 0
'http://mirror.example/debian/dists/bookworm/InRelease' b 0
'http://mirror.example/debian/dists/bookworm-updates/InRelease' c 0
"""


def test_without_a_named_mirror_it_is_that_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "run", lambda _: APT)
    assert apt.mirrors() == ["http://mirror.example/debian"]
    made = package(tmp_path / "debian" / "pool" / "set.deb", ["a.gz", "b.gz"])
    monkeypatch.setattr(apt, "mirrors", lambda: [(tmp_path / "debian").as_uri()])
    folder, _ = fetch(a_set(debian=made), tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


def test_a_machine_without_apt_says_what_names_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: object) -> str:
        raise MissingHere("the program 'apt-get' is not installed here")

    monkeypatch.setattr(process, "run", absent)
    said: list[str] = []
    made = package(tmp_path / "debian" / "pool" / "set.deb", ["a.gz"])
    with pytest.raises(JobFailed, match="no source gives set"):
        cache.fetch(a_set(debian=made), tmp_path / "cache", Downloader(), {}, "", said.append)
    assert said == ["note: Debian's package has set too, and no mirror of it is known: STACK_APT_MIRROR names one"]


def test_a_package_that_lacks_a_file_is_named(tmp_path: Path) -> None:
    made = package(tmp_path / "debian" / "pool" / "set.deb", ["a.gz"])
    with pytest.raises(JobFailed, match=r"holds no b\.gz"):
        fetch(a_set(debian=made), tmp_path / "cache", apt_mirror=(tmp_path / "debian").as_uri())
    for content in (b"no", b"!<arch>\n", b"!<arch>\n" + b"x" * 60):
        (tmp_path / "odd.deb").write_bytes(content)
        with pytest.raises(JobFailed, match="Debian package"):
            deb.unpack(tmp_path / "odd.deb", "usr", ["a"], tmp_path)


@pytest.mark.parametrize(("number", "hint"), [(errno.EROFS, "STACK_DATA=FOLDER"), (errno.ENOSPC, "make room")])
def test_a_cache_that_cannot_be_written_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(MissingHere, match="cannot be written") as refused:
        fetch(a_set(), tmp_path / "cache")
    assert hint in refused.value.hint


def test_what_is_here(tmp_path: Path) -> None:
    row = known.load()["mnist"]
    states = {one.name: one.state for one in cache.rows(tmp_path)}
    assert states == {"digits": "ships", "fashion-mnist": "absent", "mnist": "absent", "cifar10": "absent"}
    for number, file in enumerate(row.files):
        (tmp_path / "mnist").mkdir(exist_ok=True)
        (tmp_path / "mnist" / file.name).touch()
        state = {one.name: one.state for one in cache.rows(tmp_path)}["mnist"]
        assert state == ("fetched" if number == len(row.files) - 1 else "partial")


@pytest.mark.parametrize(
    ("name", "said"),
    [("minst", "no data set is named"), ("digits", "ships with the trainers"), ("tfds:beans", "tfds build beans")],
)
def test_what_cannot_be_fetched(name: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cache.find(name)
    assert said in str(refused.value)


def test_a_password_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(JobFailed) as refused:
        fetch(a_set("ftp://me:secret@nowhere.invalid/sets"), tmp_path / "cache")
    assert "secret" not in str(refused.value)
