"""torch's TCPStore, served by node 0's launcher: the ranks' rendezvous outlives rank 0, as under torchrun.

Where rank 0 holds the store, as torch's own documents have it without torchrun, ranks that go on after rank 0 has left
fail at their next new group. Written after torch/csrc/distributed/c10d/TCPStore.cpp and TCPStoreBackend.hpp: numbers
are little-endian, keys and values follow their length in eight bytes, the first byte of a request says what it is.
"""

import collections
import contextlib
import enum
import socket
import struct
from collections.abc import Callable, Sequence

from stackrt.launch.loop import READ, WRITE, Loop
from stackrt.launch.output import Console

MAGIC = 0x3C85F7CE
"""What a client begins with (validationMagicNumber)."""
MOST_BYTES = 64 << 20
"""Of a key or a value; more is no client of ours."""
MOST_KEYS = 128 * 1024
"""In one request (MAX_KEY_COUNT of TCPStoreLibUvBackend.cpp)."""
CHUNK = 65_536

_LENGTH, _NUMBER = struct.Struct("<Q"), struct.Struct("<q")
READY, NOT_READY = b"\x00", b"\x01"
STOP_WAITING, WAIT_CANCELED = b"\x00", b"\x01"


class Query(enum.IntEnum):
    """The requests that are served; later ones (queues, lists of keys) no part of torch.distributed makes."""

    VALIDATE = 0
    SET = 1
    COMPARE_SET = 2
    GET = 3
    ADD = 4
    CHECK = 5
    WAIT = 6
    GETNUMKEYS = 7
    DELETE_KEY = 8
    APPEND = 9
    MULTI_GET = 10
    MULTI_SET = 11
    CANCEL_WAIT = 12
    PING = 13


class _IncompleteError(Exception):
    """More of a request must come before it can be read."""


class _RefusedError(Exception):
    """The other end is no client that can be served; `str()` says why, empty if nobody needs to know."""


class Reader:
    """Takes a request apart."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        end = self.position + size
        if end > len(self._data):
            raise _IncompleteError
        taken = bytes(self._data[self.position : end])
        self.position = end
        return taken

    def length(self, most: int) -> int:
        """Return a length or a count."""
        size = int(_LENGTH.unpack(self.take(8))[0])
        if size > most:
            raise _RefusedError
        return size

    def text(self) -> bytes:
        """Return a key or a value."""
        return self.take(self.length(MOST_BYTES))

    def texts(self, each: int = 1) -> list[bytes]:
        """Return a list, of groups of `each`, behind its count."""
        return [self.text() for _ in range(each * self.length(MOST_KEYS))]

    def number(self) -> int:
        """Return a signed number."""
        return int(_NUMBER.unpack(self.take(8))[0])


class Store:
    """The keys and their values, and all who have asked for one."""

    def __init__(self, loop: Loop, listener: socket.socket, console: Console) -> None:
        self._loop, self._listener, self._console = loop, listener, console
        self._values: dict[bytes, bytes] = {}
        self._waiting: dict[bytes, list[_Guest]] = collections.defaultdict(list)
        self._told = False
        self._clients: set[_Guest] = set()
        listener.setblocking(False)
        loop.watch(listener, READ, self._accept)
        self._answers: dict[int, Callable[[Reader, _Guest], bytes]] = {
            Query.VALIDATE: self._validate,
            Query.PING: lambda reader, _: reader.take(4),
            Query.SET: self._set,
            Query.COMPARE_SET: self._compare_set,
            Query.GET: lambda reader, _: _framed(self._value(reader.text())),
            Query.ADD: self._add,
            Query.CHECK: self._check,
            Query.WAIT: self._wait,
            Query.CANCEL_WAIT: self._cancel_wait,
            Query.GETNUMKEYS: lambda _reader, _client: _NUMBER.pack(len(self._values)),
            Query.DELETE_KEY: lambda reader, _: _NUMBER.pack(self._values.pop(reader.text(), None) is not None),
            Query.APPEND: self._append,
            Query.MULTI_GET: lambda reader, _: b"".join(_framed(self._value(key)) for key in reader.texts()),
            Query.MULTI_SET: self._multi_set,
        }

    def close(self) -> None:
        """End all connections."""
        self._loop.unwatch(self._listener)
        self._listener.close()
        for client in list(self._clients):
            client.close()

    def answer(self, reader: Reader, client: "_Guest") -> bytes:
        """Carry out the next request, and return what it is answered with: nothing yet, for one that must wait.

        Raises:
            _IncompleteError: not all of it has come; nothing was done.
            _RefusedError: it makes no sense here.
        """
        query = reader.take(1)[0]
        known = self._answers.get(query)
        if known is None or (client.valid is False and query != Query.VALIDATE):
            raise _RefusedError(f"asked for something that this launcher does not know (query {query})"
                                if client.valid else "")  # fmt: skip
        return known(reader, client)

    def gone(self, client: "_Guest", why: str) -> None:
        """Forget a client that has left or was refused."""
        self._clients.discard(client)
        self._forget(client)
        if why and not self._told:
            self._told = True
            self._console.say(f"torch's store was {why}; TORCHELASTIC_USE_AGENT_STORE=False has rank 0 hold the store")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it has gone again
            sock, _ = self._listener.accept()
            self._clients.add(_Guest(self._loop, sock, self))

    def _validate(self, reader: Reader, client: "_Guest") -> bytes:
        if reader.take(4) != MAGIC.to_bytes(4, "little"):
            raise _RefusedError
        client.valid = True
        return b""

    def _value(self, key: bytes) -> bytes:
        if key not in self._values:
            raise _RefusedError  # clients wait for a key before they get it
        return self._values[key]

    def _put(self, key: bytes, value: bytes) -> None:
        self._values[key] = value
        for client in self._waiting.pop(key, ()):
            client.missing -= 1
            if client.missing == 0:
                client.send(STOP_WAITING)

    def _set(self, reader: Reader, _client: "_Guest") -> bytes:
        key, value = reader.text(), reader.text()
        self._put(key, value)
        return b""

    def _multi_set(self, reader: Reader, _client: "_Guest") -> bytes:
        texts = reader.texts(2)
        for key, value in zip(texts[::2], texts[1::2], strict=True):
            self._put(key, value)
        return b""

    def _append(self, reader: Reader, _client: "_Guest") -> bytes:
        key, value = reader.text(), reader.text()
        self._put(key, self._values.get(key, b"") + value)
        return b""

    def _compare_set(self, reader: Reader, _client: "_Guest") -> bytes:
        key, expected, wanted = reader.text(), reader.text(), reader.text()
        if key not in self._values:
            if expected:
                return _framed(expected)  # as torch's own store has it
            self._put(key, wanted)
        elif self._values[key] == expected:
            self._put(key, wanted)
        return _framed(self._values[key])

    def _add(self, reader: Reader, _client: "_Guest") -> bytes:
        key, amount = reader.text(), reader.number()
        try:
            total = int(self._values.get(key, b"0")) + amount
        except ValueError:
            raise _RefusedError from None
        self._put(key, str(total).encode())
        return _NUMBER.pack(total)

    def _check(self, reader: Reader, _client: "_Guest") -> bytes:
        return READY if all(key in self._values for key in reader.texts()) else NOT_READY

    def _wait(self, reader: Reader, client: "_Guest") -> bytes:
        absent = [key for key in reader.texts() if key not in self._values]
        for key in absent:
            self._waiting[key].append(client)
        client.missing = len(absent)
        return b"" if absent else STOP_WAITING

    def _cancel_wait(self, _reader: Reader, client: "_Guest") -> bytes:
        self._forget(client)
        return WAIT_CANCELED

    def _forget(self, client: "_Guest") -> None:
        if client.missing:
            client.missing = 0
            for key in [key for key, clients in self._waiting.items() if client in clients]:
                self._waiting[key] = [other for other in self._waiting[key] if other is not client]


class _Guest:
    """One connection of a rank."""

    def __init__(self, loop: Loop, sock: socket.socket, store: Store) -> None:
        self._loop, self._sock, self._store = loop, sock, store
        self._read, self._unsent = bytearray(), bytearray()
        self.valid = False
        self.missing = 0
        """Keys that it waits for."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.watch(sock, READ, self._ready)

    def send(self, data: bytes) -> None:
        """Send without waiting."""
        self._unsent += data
        self._flush()

    def close(self, why: str = "") -> None:
        """End the connection; `why` is for the launcher's user."""
        self._loop.unwatch(self._sock)
        self._sock.close()
        self._store.gone(self, why)

    def _flush(self) -> None:
        # What can't be sent, reading finds out.
        with contextlib.suppress(OSError):
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent[:CHUNK])]
        if self._sock.fileno() >= 0:
            self._loop.watch(self._sock, READ | WRITE if self._unsent else READ, self._ready)

    def _ready(self) -> None:
        if self._unsent:
            self._flush()
        try:
            data = self._sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._read += data
        reader, done = Reader(self._read), 0
        try:
            while done < len(self._read):
                answer = self._store.answer(reader, self)
                done = reader.position
                if answer:
                    self.send(answer)
        except _IncompleteError:
            pass
        except _RefusedError as error:
            self.close(str(error))
            return
        del self._read[:done]


def _framed(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


class Client:
    """What a program of ours asks of a store, and waits for.

    Args:
        place: host and port of the store.
        seconds: after which a store that does not answer is gone.

    Raises:
        OSError: nobody answers there, or no more; so do all methods.
    """

    def __init__(self, place: tuple[str, int], seconds: float) -> None:
        self._seconds = seconds
        self._sock = socket.create_connection(place, timeout=seconds)
        self._sock.sendall(bytes([Query.VALIDATE]) + MAGIC.to_bytes(4, "little"))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def set(self, key: str, value: bytes) -> None:
        """Put a value under a key."""
        self._ask(Query.SET, _framed(key.encode()) + _framed(value))

    def add(self, key: str, amount: int) -> int:
        """Add to the number under a key, and return the sum."""
        self._ask(Query.ADD, _framed(key.encode()) + _NUMBER.pack(amount))
        return int(_NUMBER.unpack(self._take(8))[0])

    def get(self, keys: Sequence[str]) -> list[bytes]:
        """Return the values of keys that are there."""
        self._ask(Query.MULTI_GET, _listed(keys))
        return [self._take(int(_LENGTH.unpack(self._take(8))[0])) for _ in keys]

    def check(self, keys: Sequence[str]) -> bytes:
        """Return READY if all keys are there, else NOT_READY."""
        self._ask(Query.CHECK, _listed(keys))
        return self._take(1)

    def wait(self, keys: Sequence[str], seconds: float) -> bool:
        """Wait until all keys are there; return whether they came in time."""
        self._ask(Query.WAIT, _listed(keys))
        self._sock.settimeout(max(seconds, 0.001))
        try:
            self._take(1)
            return True
        except TimeoutError:
            self._sock.settimeout(self._seconds)
            self._ask(Query.CANCEL_WAIT, b"")
            if self._take(1) == WAIT_CANCELED:
                return False
            self._take(1)  # they came in this very moment
            return True
        finally:
            self._sock.settimeout(self._seconds)

    def _ask(self, query: Query, rest: bytes) -> None:
        self._sock.sendall(bytes([query]) + rest)

    def _take(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            data = self._sock.recv(min(size - len(found), CHUNK))
            if not data:
                raise ConnectionError("the store has gone")
            found += data
        return bytes(found)


def _listed(keys: Sequence[str]) -> bytes:
    return _LENGTH.pack(len(keys)) + b"".join(_framed(key.encode()) for key in keys)
