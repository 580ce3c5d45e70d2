"""Another node's end of its control connection: finds node 0, waits for it with back-off, proves the token, joins."""

import errno
import os
import socket

from stackrt.contract import CONFIG, PEERS, Reason
from stackrt.launch import failure
from stackrt.launch.connection import Connection
from stackrt.launch.environment import Contract
from stackrt.launch.errors import WrongTokenError
from stackrt.launch.loop import WRITE, Loop, Timer
from stackrt.launch.member import Member
from stackrt.launch.output import Console
from stackrt.launch.resolve import Found, resolve
from stackrt.launch.timing import FIRST_NEWS, HANDSHAKE, NEWS, SILENCE
from stackrt.launch.wire import ClientHandshake, Message

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two tries; each pause is twice the last."""


class Client:
    """Keeps this node connected to node 0, from the first try to the goodbye."""

    def __init__(self, loop: Loop, contract: Contract, member: Member, join: Message, console: Console) -> None:
        self._loop, self._contract, self._member, self._console = loop, contract, member, console
        self._join = join
        self._place = f"{contract.host}:{contract.port}"
        self._socket: socket.socket | None = None
        self._connection: Connection | None = None
        self._deadline: Timer | None = None
        self._welcome = self._over = False
        self._tries, self._heard = 0, 0.0
        self._opened = self._next_news = 0.0
        self._pause, self._why = FIRST_PAUSE, ""
        member.send, member.leave = self._send, self._leave

    def start(self) -> None:
        """Begin to look for node 0, for as long as STACK_TIMEOUT says."""
        self._opened = self._loop.awake
        self._next_news = self._opened + FIRST_NEWS
        self._pause, self._why = FIRST_PAUSE, "looking up its name"
        self._try()

    def tick(self) -> None:
        """Look at the clock; call a few times a second."""
        now, ours = self._loop.awake, self._contract
        if self._over:
            return
        if self._welcome:
            if now - self._heard > SILENCE:
                self._lost(f"nothing heard from it for {now - self._heard:.0f} s")
            return
        waited = now - self._opened
        if waited > ours.timeout:
            self._over = True
            sentence = f"node 0 of {ours.nodes} never came within {ours.timeout:g} s ({self._place}: {self._why})"
            self._member.conclude(PEERS, self._report(Reason.PEERS_MISSING, PEERS, sentence))
        elif now >= self._next_news:
            self._next_news = now + NEWS
            waiting = f"waiting for node 0 at {self._place}"
            self._console.say(f"{waiting} ({self._why}; {waited:.0f} s of {ours.timeout:g} s)")

    def _try(self) -> None:
        if not self._over:
            self._tries += 1
            resolve(self._loop, self._contract.host, self._contract.port, self._connect)

    def _connect(self, found: Found) -> None:
        if self._over:
            return
        if isinstance(found, str):
            self._again(found)
            return
        # One address a try, in turn: a name may have one that does not work.
        family, address = found[self._tries % len(found)]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        self._socket = sock
        self._deadline = self._loop.after(HANDSHAKE, lambda: self._again("no answer"))
        error = sock.connect_ex(address)
        if error in (0, errno.EINPROGRESS):
            self._loop.watch(sock, WRITE, lambda: self._connected(sock))
        else:  # said here and only here: no route, or, on macOS, nobody who listens
            self._again(os.strerror(error).lower())

    def _connected(self, sock: socket.socket) -> None:
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._again(os.strerror(error).lower())
            return
        self._loop.unwatch(sock)
        self._socket = None
        handshake = ClientHandshake(self._contract.token)
        connection = Connection(self._loop, sock, lambda data: self._prove(connection, handshake, data), self._again)
        self._connection = connection

    def _prove(self, connection: Connection, handshake: ClientHandshake, data: bytes) -> None:
        if not handshake.greeted:
            connection.send_raw(handshake.answer(data))
            return
        try:
            session = handshake.finish(data)
        except WrongTokenError:
            sentence = f"STACK_TOKEN is not the one that node 0 at {self._place} has; give all nodes the same"
            self._refused(CONFIG, sentence)
            return
        connection.authenticated(session, self._hear)
        connection.send(self._join)

    def _hear(self, message: Message) -> None:
        self._heard = self._loop.awake
        kind = message["type"]
        if kind == "refused":
            self._refused(int(message["code"]), str(message["sentence"]))
        elif kind == "welcome" and self._connection is not None:
            self._welcome = True
            self._member.interface = self._connection.interface
            self._cancel_deadline()
            self._connection.on_closed = self._lost
        else:
            self._member.receive(message)

    def _refused(self, code: int, sentence: str) -> None:
        # Not written to failure.json: the folder may be the job's, and the job goes on without this node.
        self._over = True
        self._console.say(sentence)
        reason = Reason.CONFIG if code == CONFIG else Reason.PEERS_MISSING
        failure.write_termination_log(self._report(reason, code, sentence))
        self._leave(code)

    def _report(self, reason: Reason, code: int, sentence: str) -> failure.Report:
        ours = self._contract
        return failure.report(
            ours.run,
            ours.attempt,
            reason=reason,
            code=code,
            sentence=sentence,
            node=0,
            host=ours.host,
        )

    def _again(self, why: str) -> None:
        """Try again after a pause."""
        self._cancel_deadline()
        if self._socket is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
            self._socket = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if not self._over:
            self._why = why
            self._loop.after(self._pause, self._try)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _lost(self, why: str) -> None:
        """Node 0 has gone: before the start it may come back, after it the job is over."""
        if self._over:
            return
        if self._member.started:
            self._over = True
            self._member.link_lost(why)
            return
        self._welcome = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._console.say(f"node 0 at {self._place} has gone before the start ({why}); waiting for it again")
        self.start()

    def _send(self, message: Message) -> None:
        if self._connection is not None and self._welcome:
            self._connection.send(message)

    def _leave(self, code: int) -> None:
        self._over = True
        self._send({"type": "bye"})
        if self._connection is not None:
            self._connection.close()
        self._loop.finish(code)
