from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from stackrt.serve.pieces import Pieces


def shown(text: bytes, *stops: str) -> tuple[list[str], bool]:
    """The pieces of a text whose tokens are bytes."""
    pieces = Pieces(lambda ids: bytes(ids).decode(errors="replace"), stops)
    found = []
    for byte in text:
        found.append(pieces.add(byte))
        if pieces.stopped:
            return found, True
    return [*found, pieces.end()], False


def test_a_character_of_several_tokens_comes_whole() -> None:
    found, _ = shown("aä€😀b".encode())
    assert [piece for piece in found if piece] == ["a", "ä", "€", "😀", "b"]


def test_pieces_are_the_text_as_a_whole_whatever_its_bytes_are() -> None:
    texts = [b"a\xff\xfe\xfd\xfcb", b"a\xe2\x82", bytes([0xE1, 0xF0, 0x9F, 0xC8, 0x8A]), "dé€😀 ".encode() * 20]
    texts += [random.Random(seed).randbytes(200) for seed in range(50)]
    for text in texts:
        assert "".join(shown(text)[0]) == text.decode(errors="replace")


@pytest.mark.parametrize(
    ("text", "stops", "wanted", "stopped"),
    [
        ("one\n\ntwo", ["\n\n"], "one", True),
        ("one\ntwo", ["\n\n"], "one\ntwo", False),
        ("aaab", ["aab"], "a", True),
        ("abc", ["x", "bc", "c"], "a", True),
        ("ends with a beginning EN", ["END"], "ends with a beginning EN", False),
    ],
)
def test_nothing_of_a_stop_sequence_is_shown(text: str, stops: list[str], wanted: str, stopped: bool) -> None:
    found, said = shown(text.encode(), *stops)
    assert ("".join(found), said) == (wanted, stopped)


def spoiling(ids: Sequence[int]) -> str:
    """As tokenizers that fall back to bytes: a run of bytes that is not whole is lost as a whole."""
    return "".join(
        bytes(run).decode() if _whole(bytes(run)) else "\ufffd" * len(run)
        for run in (list(group) for _, group in itertools.groupby(ids, lambda byte: byte >= 128))
    )


def _whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("text", ["🦙🦙", "ééaé", "a🦙é🦙b🦙" * 12, "🦙" * 80, "日本語のテキスト。" * 10])
def test_characters_of_bytes_come_whole_in_a_row_of_any_length(text: str) -> None:
    pieces = Pieces(spoiling)
    found = [pieces.add(byte) for byte in text.encode()]
    assert "".join([*found, pieces.end()]) == text
    assert max(map(len, found)) == 1


WORDS = ["▁To", "▁be", "▁or", "not", "▁not"]


def spaced(ids: Sequence[int]) -> str:
    """As tokenizers that write a word's space before it, and leave out that of a text's first word."""
    return "".join(WORDS[one] for one in ids).replace("▁", " ").removeprefix(" ")


@pytest.mark.parametrize(("answer", "wanted"), [([2, 4], " or not"), ([3, 2], "not or"), ([4] * 60, " not" * 60)])
def test_an_answer_goes_on_from_its_prompt_with_the_space_between(answer: list[int], wanted: str) -> None:
    pieces = Pieces(spaced, before=[0, 1])
    assert "".join([*map(pieces.add, answer), pieces.end()]) == wanted
    assert Pieces(spaced, before=[0, 1]).all(answer) == wanted
    assert Pieces(spaced).all(answer) == wanted.removeprefix(" ")


def test_nothing_of_a_prompt_is_shown_whatever_its_bytes_are() -> None:
    def decode(ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")

    for seed in range(50):
        draws = random.Random(seed)
        before, text = draws.randbytes(draws.randrange(20)), draws.randbytes(40)
        pieces = Pieces(decode, before=before + "é".encode())
        assert "".join([*map(pieces.add, text), pieces.end()]) == decode(text)
