from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.runs import rejoin


@pytest.mark.parametrize(
    ("kept", "there", "same"),
    [
        ("abcdef", "def", 3),
        ("abcdef", "defgh", 3),
        ("abcdef", "xyz", 0),
        ("abcdef", "", 0),
        ("", "abc", 0),
        ("abab", "ababab", 4),
        ("aaaa", "aaaaaaa", 4),
        ("xaabaa", "aabaac", 5),
        ("xaab", "aaa", 0),
        ("abcd", "bc", 0),
    ],
)
def test_the_most_lines_that_fit(kept: str, there: str, same: int) -> None:
    assert rejoin.overlap([c.encode() for c in kept], [c.encode() for c in there]) == (len(kept), same)


def test_what_was_kept_before_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.log"
    path.write_bytes(b"a\n\nb\nc\n")
    assert rejoin.joint(path, [b"c", b"d"]) == (4, 1)
    assert list(rejoin.first(path, 3)) == [b"a", b"", b"b"]
    assert rejoin.first_line(path) == b"a"
    assert rejoin.first_line(tmp_path / "none") is None


def test_a_newer_log_is_added(tmp_path: Path) -> None:
    path, newer = tmp_path / "rank-0.log", tmp_path / "rank-0.newer"
    path.write_bytes(b"a\nb\nc\n")
    newer.write_bytes(b"b\nc\nd\n")
    rejoin.append(path, newer)
    assert path.read_bytes() == b"a\nb\nc\nd\n"
    assert not newer.exists()
    newer.write_bytes(b"x\ny\n")
    rejoin.append(path, newer)
    assert path.read_bytes() == b"x\ny\n", "of another pod"
