import hashlib
from pathlib import Path

import pytest

from stackrt.checks import files
from stackrt.checks.files import CERTIFICATE, LARGEST, audit

SECRET = "password = hunter2"
PATTERNS = {"password": "hunter2"}
BLOCK = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "site/a-1.dist-info").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/info").mkdir(parents=True)
    return tmp_path


def found(root: Path) -> dict[str, str]:
    audited = audit(root, root / "site", PATTERNS)
    return {str(Path(path).relative_to(root)): kind for path, kind in audited.found}


def of_debian(root: Path, path: str, text: str, *, digest: bool = True) -> None:
    """A file of a Debian package: settings, which may be changed, have no digest."""
    (root / path).write_text(text)
    info = root / "var/lib/dpkg/info"
    with (info / "a.list").open("a") as names:
        names.write(f"/{path}\n")
    if digest:
        with (info / "a.md5sums").open("a") as sums:
            sums.write(f"{hashlib.md5(text.encode()).hexdigest()}  {path}\n")


def test_what_debian_brought_is_known_by_its_digest_and_by_either_of_its_names(root: Path) -> None:
    of_debian(root, "lib/example", SECRET)
    assert found(root) == {}
    (root / "usr/lib/example").write_text(SECRET.replace("password", "PASSWORD"))
    assert found(root) == {"usr/lib/example": "password"}, "of the same size, and changed"


def test_settings_of_debian_are_searched(root: Path) -> None:
    of_debian(root, "usr/settings", SECRET, digest=False)
    assert found(root) == {"usr/settings": "password"}


def test_what_a_wheel_brought_is_known_by_its_size(root: Path) -> None:
    (root / "bin").mkdir()
    (root / "bin/tool").write_text(SECRET)
    record = root / "site/a-1.dist-info/RECORD"
    record.write_text(f'../bin/tool,sha256=0,{len(SECRET)}\n"a-1.dist-info/RECORD",,\n')
    assert found(root) == {}
    (root / "bin/tool").write_text(f"{SECRET}\n")
    assert found(root) == {"bin/tool": "password"}


def test_a_certificate_is_known_wherever_a_package_brought_it(root: Path) -> None:
    of_debian(root, "usr/authority.crt", BLOCK.format("known"))
    bundle = root / "usr/bundle.crt"
    bundle.write_text(BLOCK.format("known"))
    assert found(root) == {}
    bundle.write_text(BLOCK.format("known") + BLOCK.format("foreign"))
    assert found(root) == {"usr/bundle.crt": CERTIFICATE}


def test_libraries_and_bytecode_are_not_searched(root: Path) -> None:
    (root / "usr/lib/large.so").write_text(SECRET + " " * LARGEST)
    (root / "usr/__pycache__").mkdir()
    (root / "usr/__pycache__/a.pyc").write_text(SECRET)
    (root / "usr/empty").touch()
    (root / "usr/own").write_text("mine")
    audited = audit(root, root / "site", PATTERNS)
    assert audited.found == []
    assert audited.searched == 1


def test_the_search_does_not_find_itself(root: Path) -> None:
    (root / "usr/files.py").write_text(Path(files.__file__).read_text())
    assert found(root) == {}
