import json

import pytest

from stackrt.launch.errors import WireError, WrongTokenError
from stackrt.launch.wire import (
    MAGIC,
    REFUSED,
    SMALL,
    ClientHandshake,
    Framer,
    ServerHandshake,
    Session,
    frame,
)

TOKEN = "the token of this run"


def body(framed: bytes) -> bytes:
    framer = Framer()
    framer.limit = 1 << 20
    framer.feed(framed)
    found = framer.next()
    assert found is not None
    return found


def meet(server_token: str = TOKEN, client_token: str = TOKEN) -> tuple[Session, Session, bytes]:
    server, client = ServerHandshake(server_token), ClientHandshake(client_token)
    answer = body(client.answer(body(server.greeting)))
    reply, ours = server.finish(answer)
    return ours, client.finish(body(reply)), answer


def test_two_ends_with_the_token_talk_both_ways() -> None:
    ours, theirs, _ = meet()
    for number in range(3):
        assert theirs.open(body(ours.seal({"n": number}))) == {"n": number}
        assert ours.open(body(theirs.seal({"n": -number}))) == {"n": -number}


def test_a_wrong_token_is_told_from_garbage() -> None:
    with pytest.raises(WrongTokenError):
        meet(client_token="another token")
    server = ServerHandshake(TOKEN)
    with pytest.raises(WireError) as caught:
        server.finish(b"GET / HTTP/1.1")
    assert not isinstance(caught.value, WrongTokenError)


def test_a_server_without_the_token_is_refused() -> None:
    server, client = ServerHandshake(TOKEN), ClientHandshake(TOKEN)
    client.answer(body(server.greeting))
    for reply in (bytes(32), REFUSED, b""):
        with pytest.raises(WrongTokenError):
            client.finish(reply)


def test_our_own_proof_reflected_is_refused() -> None:
    server, client = ServerHandshake(TOKEN), ClientHandshake(TOKEN)
    answer = body(client.answer(body(server.greeting)))
    with pytest.raises(WrongTokenError):
        client.finish(answer[32:])


def test_a_recorded_answer_is_worth_nothing_later() -> None:
    _, _, answer = meet()
    with pytest.raises(WrongTokenError):
        ServerHandshake(TOKEN).finish(answer)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request", b"stackrt-launch/9" + bytes(32), MAGIC])
def test_another_protocol_or_version_is_no_launcher(greeting: bytes) -> None:
    with pytest.raises(WireError, match="not this version"):
        ClientHandshake(TOKEN).answer(greeting)


def test_replayed_reordered_and_changed_messages_are_refused() -> None:
    for spoil in (lambda a, b: a, lambda a, b: b[:-1] + b"]", lambda a, b: b""):
        ours, theirs, _ = meet()
        first, second = body(ours.seal({"a": 1})), body(ours.seal({"b": 2}))
        theirs.open(first)
        with pytest.raises(WireError):
            theirs.open(spoil(first, second))


def test_a_message_sent_back_is_refused() -> None:
    ours, _, _ = meet()
    with pytest.raises(WireError):
        ours.open(body(ours.seal({"a": 1})))


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff"])
def test_only_objects_are_messages(content: bytes) -> None:
    ours, theirs = Session(b"a", b"b"), Session(b"b", b"a")
    sealed = bytearray(body(ours.seal({})))
    sealed[32:] = content
    with pytest.raises(WireError):
        theirs.open(bytes(sealed))
    assert json.loads(body(ours.seal({}))[32:]) == {}


def test_frames_arrive_in_any_pieces() -> None:
    stream, framer, found = frame(b"one") + frame(b"") + frame(b"three"), Framer(), []
    for byte in stream:
        framer.feed(bytes([byte]))
        if (one := framer.next()) is not None:
            found.append(one)
    assert found == [b"one", b"", b"three"]


def test_a_long_frame_is_refused_before_it_is_held() -> None:
    framer = Framer()
    framer.feed((SMALL + 1).to_bytes(4, "big"))
    with pytest.raises(WireError, match="too long"):
        framer.next()
