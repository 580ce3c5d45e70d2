import errno
import socket
from typing import NoReturn

from stackrt.launch.connection import Connection
from stackrt.launch.loop import Loop


class Gone(socket.socket):
    """A socket on macOS whose other end has gone: it takes no option any more."""

    def setsockopt(self, *_: object) -> NoReturn:
        raise OSError(errno.EINVAL, "Invalid argument")


def test_a_peer_that_has_gone_at_once_is_found_by_reading() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    loop, why = Loop(), list[str]()

    def closed(reason: str) -> None:
        why.append(reason)
        loop.finish(0)

    Connection(loop, Gone(fileno=ours.detach()), lambda _: None, closed)
    assert loop.run() == 0
    assert why == ["connection closed"]
