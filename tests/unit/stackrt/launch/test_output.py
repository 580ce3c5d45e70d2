import random

import pytest

from stackrt.launch.output import LAST_LINE_BYTES, LONGEST, Lines


def show(*pieces: bytes) -> bytes:
    lines = Lines(b"[0] ")
    return b"".join(lines.feed(piece) for piece in pieces) + lines.end()


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ((b"a\nb\n",), b"[0] a\n[0] b\n"),
        ((b"a", b"b", b"\n"), b"[0] ab\n"),
        ((b"a\r", b"\nb"), b"[0] a\n[0] b\n"),
        ((b"1%\r2%\r", b"3%\n"), b"[0] 1%\n[0] 2%\n[0] 3%\n"),
        ((b"\n\n",), b"[0] \n[0] \n"),
        ((b"no end",), b"[0] no end\n"),
        ((b"end\r",), b"[0] end\n"),
        ((b"\xff\xc3", b"\xa9\n"), b"[0] \xff\xc3\xa9\n"),
        ((b"",), b""),
    ],
)
def test_lines(pieces: tuple[bytes, ...], shown: bytes) -> None:
    assert show(*pieces) == shown


def test_any_cut_gives_the_same_lines() -> None:
    chance = random.Random(1)
    text = bytes(chance.choice(b"ab\r\n") for _ in range(2000))
    whole = show(text)
    for _ in range(50):
        cuts = sorted(chance.randrange(len(text)) for _ in range(20))
        assert show(*(text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True))) == whole


@pytest.mark.parametrize("size", [LONGEST - 1, LONGEST, LONGEST + 1, 3 * LONGEST + 5])
@pytest.mark.parametrize("step", [1000, 10_000_000])
def test_giant_lines_are_cut_and_nothing_is_lost(size: int, step: int) -> None:
    text = b"x" * size + b"\ny\n"
    shown = show(*(text[start : start + step] for start in range(0, len(text), step)))
    assert all(len(line) <= LONGEST + 4 for line in shown.split(b"\n"))
    assert shown.replace(b"[0] ", b"").replace(b"\n", b"") == b"x" * size + b"y"


def test_the_last_lines_are_kept_short_and_decoded() -> None:
    lines = Lines(b"[0] ")
    lines.feed(b"".join(b"%d\n" % number for number in range(100)) + b"\xff" + b"z" * 5000)
    last = lines.last()
    assert len(last) == 30
    assert last[:-1] == [str(number) for number in range(71, 100)]
    assert last[-1] == "z" * LAST_LINE_BYTES
