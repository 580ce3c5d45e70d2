"""Frames of websockets, as RFC 6455 has them."""

from __future__ import annotations

import pytest

from stackctl.engines.kube_exec import Frames, frame


def unmasked(data: bytes, start: int) -> bytes:
    mask = data[start : start + 4]
    return bytes(byte ^ mask[number % 4] for number, byte in enumerate(data[start + 4 :]))


@pytest.mark.parametrize(("size", "start"), [(0, 2), (1, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_a_clients_frame_is_masked_and_says_its_size(size: int, start: int) -> None:
    data = bytes(number % 251 for number in range(size))
    made = frame(2, data)
    assert (made[0], made[1] & 0x80) == (0x82, 0x80)
    told = made[1] & 0x7F
    assert size == (told if told < 126 else int.from_bytes(made[2:start], "big"))
    assert unmasked(made, start) == data


def test_messages_come_whole_however_they_were_cut() -> None:
    long = bytes(70_000)
    sent = (
        b"\x82\x03\x01ab"
         b"\x02\x02\x01c"  # a message in two frames, a ping between them
         b"\x89\x01p"
         b"\x80\x01d"
         b"\x82\x7f" + len(long).to_bytes(8, "big") + long
        + b"\x82\x7e\x01\x00" + bytes(256)
        + b"\x88\x02\x03\xe8"
    )  # fmt: skip
    wanted = [(2, b"\x01ab"), (9, b"p"), (2, b"\x01cd"), (2, long), (2, bytes(256)), (8, b"\x03\xe8")]
    assert list(Frames().feed(sent)) == wanted
    for step in (1, 7, 65_536):
        frames = Frames()
        assert [row for at in range(0, len(sent), step) for row in frames.feed(sent[at : at + step])] == wanted
