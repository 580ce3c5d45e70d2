"""The control connection's protocol, apart from sockets: frames, a mutual handshake, authenticated messages.

    node 0 -> node k   MAGIC, nonce_0
    node k -> node 0   nonce_k, HMAC(token, "node k" nonce_0 nonce_k)
    node 0 -> node k   HMAC(token, "node 0" nonce_0 nonce_k)
    then, both ways    HMAC(session key of the direction, counter, body), body (JSON)

HMAC is HMAC-SHA256 (RFC 2104). The token itself never travels. Fresh nonces on both sides make a recorded handshake
worthless, labels stop reflections, and the counter stops replays within a session. Messages are not secret.
"""

import hmac
import json
import os
from typing import Any

from stackrt.launch.errors import WireError, WrongTokenError

Message = dict[str, Any]

MAGIC = b"stackrt-launch/3"
NONCE = 32
MAC = 32
LENGTH = 4
"""Bytes of a frame's big-endian length."""
SMALL = 256
"""The longest frame, in bytes, from a peer that has not proved itself."""
LARGE = 16 * 1024 * 1024
"""The longest frame, in bytes, from a peer that has."""
REFUSED = b"wrong token"


def frame(body: bytes) -> bytes:
    """Prefix a body with its length."""
    return len(body).to_bytes(LENGTH, "big") + body


class Framer:
    """Cuts a byte stream into frames; holds at most one unfinished frame of `limit` bytes."""

    def __init__(self) -> None:
        self.limit = SMALL
        self._held = bytearray()

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._held += data

    def next(self) -> bytes | None:
        """Return the next whole frame's body, or None when more bytes are needed.

        Raises:
            WireError: the announced length is above the limit.
        """
        if len(self._held) < LENGTH:
            return None
        size = int.from_bytes(self._held[:LENGTH], "big")
        if size > self.limit:
            raise WireError("not a launcher: frame too long")
        if len(self._held) < LENGTH + size:
            return None
        body = bytes(self._held[LENGTH : LENGTH + size])
        del self._held[: LENGTH + size]
        return body


class Session:
    """Seals and opens messages between two ends that proved the token to each other."""

    def __init__(self, send_key: bytes, receive_key: bytes) -> None:
        self._send_key, self._receive_key = send_key, receive_key
        self._sent = self._received = 0

    def seal(self, message: Message) -> bytes:
        """Return the frame that carries a message."""
        body = json.dumps(message, separators=(",", ":")).encode()
        self._sent += 1
        return frame(_mac(self._send_key, self._sent.to_bytes(8, "big"), body) + body)

    def open(self, data: bytes) -> Message:
        """Check and decode a frame's body.

        Raises:
            WireError: forged, replayed, out of order, or not a JSON object.
        """
        mac, body = data[:MAC], data[MAC:]
        self._received += 1
        if not hmac.compare_digest(mac, _mac(self._receive_key, self._received.to_bytes(8, "big"), body)):
            raise WireError("message with a wrong authentication code")
        try:
            message = json.loads(body)
        except ValueError as error:
            raise WireError("message that is not JSON") from error
        if not isinstance(message, dict):
            raise WireError("message that is not an object")
        return message


class ServerHandshake:
    """Node 0's half. Send `greeting`, pass the answer to `finish`, send its reply."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._nonce = os.urandom(NONCE)
        self.greeting = frame(MAGIC + self._nonce)

    def finish(self, answer: bytes) -> tuple[bytes, Session]:
        """Check the other node's proof; return our own proof (a frame) and the session.

        Raises:
            WireError: not a launcher.
            WrongTokenError: a launcher without this run's token.
        """
        if len(answer) != NONCE + MAC:
            raise WireError("not a launcher: bad answer")
        nonces = self._nonce + answer[:NONCE]
        if not hmac.compare_digest(answer[NONCE:], _mac(self._token, b"node k", nonces)):
            raise WrongTokenError("wrong token")
        send, receive = _mac(self._token, b"from 0", nonces), _mac(self._token, b"from k", nonces)
        return frame(_mac(self._token, b"node 0", nonces)), Session(send, receive)


class ClientHandshake:
    """Another node's half. Pass node 0's greeting to `answer`, send the result, pass the reply to `finish`."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._nonces = b""

    @property
    def greeted(self) -> bool:
        """Whether node 0's greeting has come."""
        return bool(self._nonces)

    def answer(self, greeting: bytes) -> bytes:
        """Return our proof (a frame).

        Raises:
            WireError: the other end is no launcher, or one of another version.
        """
        if len(greeting) != len(MAGIC) + NONCE or not greeting.startswith(MAGIC):
            raise WireError("something that is not this version's launcher answers there")
        nonce = os.urandom(NONCE)
        self._nonces = greeting[len(MAGIC) :] + nonce
        return frame(nonce + _mac(self._token, b"node k", self._nonces))

    def finish(self, reply: bytes) -> Session:
        """Check node 0's proof and return the session.

        Raises:
            WrongTokenError: node 0 refused our proof, or could not prove itself.
        """
        if not hmac.compare_digest(reply, _mac(self._token, b"node 0", self._nonces)):
            raise WrongTokenError("wrong token")
        send, receive = _mac(self._token, b"from k", self._nonces), _mac(self._token, b"from 0", self._nonces)
        return Session(send, receive)


def _mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), "sha256")
