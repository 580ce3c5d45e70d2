from __future__ import annotations

import pytest

from stackctl.images import lockfile, sums

A, B = "a" * 64, "b" * 64
HASH = "    --hash=sha256:"
LOCK = f"# header\nnumpy==2.4.6 \\\n{HASH}{A} \\\n{HASH}{B}\ntqdm==4.70.1 \\\n{HASH}{A}\n"
SUMS = sums.text({"x.txt": LOCK, "x.framework.txt": f"torch==2.13.0 \\\n    --hash=sha256:{A}\n"})


def test_a_lock_as_it_was_written_has_no_edits() -> None:
    assert sums.edits(SUMS, {"x.txt": LOCK}) == []
    assert sums.edits(SUMS, {"x.txt": LOCK.replace("# header", "# another header")}) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("tqdm==4.70.1", "tqdm==4.70.2", 5, "the resolver wrote tqdm==4.70.1, and the lock has 4.70.2"),
        (B, "c" * 64, 2, "the resolver wrote other hashes for numpy==2.4.6"),
        (f"tqdm==4.70.1 \\\n    --hash=sha256:{A}\n", "", 1, "wrote tqdm==4.70.1, and the lock has it no more"),
        ("tqdm==4.70.1", "rich==1.0 \\\n    --hash=sha256:0\ntqdm==4.70.1", 5, "the resolver wrote no rich"),
    ],
)
def test_an_edit_is_named_by_line(old: str, new: str, line: int, said: str) -> None:
    assert old in LOCK
    (edit,) = sums.edits(SUMS, {"x.txt": LOCK.replace(old, new)})
    assert (edit.file, edit.line) == ("x.txt", line)
    assert said in edit.message


def test_what_was_written_is_known_without_the_edits() -> None:
    edited = {"x.txt": LOCK.replace("numpy==2.4.6", "numpy==2.4.7").replace("tqdm==4.70.1", "rich==1.0")}
    assert sums.written(SUMS, edited) == {"numpy": "numpy==2.4.6", "tqdm": "tqdm==4.70.1"}
    assert sums.written(SUMS, {"x.txt": LOCK})["tqdm"].endswith(f"--hash=sha256:{A}")
    assert sums.versions(SUMS, "x.framework.txt") == {"torch": "2.13.0"}


def test_sizes_are_kept_by_the_digest_of_a_packages_lines() -> None:
    numpy, tqdm = lockfile.parse(LOCK)
    noted = sums.text({"x.txt": LOCK}, {numpy.digest: 16_000_000})
    assert sums.sizes(noted) == {numpy.digest: 16_000_000}, "of tqdm nobody knows"
    assert sums.edits(noted, {"x.txt": LOCK}) == []
    assert tqdm.digest not in sums.sizes(SUMS)


def test_sizes_are_known_by_release_where_they_are_noted() -> None:
    (numpy, _) = lockfile.parse(LOCK)
    noted = sums.text({"x.txt": LOCK}, {numpy.digest: 16_000_000})
    assert sums.releases(noted) == {"numpy==2.4.6": 16_000_000}
    assert sums.sizes(noted) == {numpy.digest: 16_000_000}
