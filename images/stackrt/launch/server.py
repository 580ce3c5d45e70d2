"""Node 0's end of the control connections: listens, checks tokens, carries messages to and from the coordinator."""

import collections
import errno
import socket
from collections.abc import Callable

from stackrt.launch.connection import Connection
from stackrt.launch.coordinator import Coordinator
from stackrt.launch.environment import Contract
from stackrt.launch.errors import ConfigError, LaunchError, WireError, WrongTokenError
from stackrt.launch.loop import READ, Loop
from stackrt.launch.member import Member
from stackrt.launch.output import Console
from stackrt.launch.ports import listen
from stackrt.launch.timing import HANDSHAKE, LINGER
from stackrt.launch.wire import REFUSED, Message, ServerHandshake, Session, frame

STRANGERS = 64
"""Connections that have not proved the token; one more ends the oldest, so newcomers always get their turn."""
WARN_EVERY = 10.0


class Server:
    """The hub of the star: every node has one connection, to here; node 0's own member is reached directly."""

    def __init__(self, loop: Loop, contract: Contract, member: Member, console: Console) -> None:
        self._loop, self._contract, self._member, self._console = loop, contract, member, console
        self.coordinator: Coordinator
        self._listener: socket.socket | None = None
        self._strangers: collections.deque[Connection] = collections.deque()
        self._nodes: dict[int, Connection] = {}
        self._intruders, self._warned = 0, float("-inf")
        member.send = lambda message: self._soon(lambda: self.coordinator.receive(0, message))
        member.leave = self._leave

    def listen(self) -> None:
        """Open the rendezvous port.

        Raises:
            ConfigError: the port is taken, or the host is not this machine's.
        """
        port = self._contract.port
        try:
            listener = listen(self._contract.host, port)
        except OSError as error:
            why = "in use by another program" if error.errno == errno.EADDRINUSE else error.strerror
            raise ConfigError(
                f"STACK_RENDEZVOUS={self._contract.host}:{port}: port {port} can't be opened: {why}; "
                "choose a free port and give it to all nodes"
            ) from error
        listener.setblocking(False)
        self._listener = listener
        self._loop.watch(listener, READ, self._accept)

    def send(self, node: int, message: Message) -> None:
        """Carry a message of the coordinator to a node."""
        if node == 0:
            self._soon(lambda: self._member.receive(message))
        elif node in self._nodes:
            self._nodes[node].send(message)

    def tick(self) -> None:
        """Look at the clock; call a few times a second."""
        self.coordinator.tick()
        for node in [node for node in self._nodes if node not in self.coordinator.seats]:
            # Silent for too long before the start: should it wake up, it must join again.
            self._nodes.pop(node).close()

    def _soon(self, call: Callable[[], None]) -> None:
        # Never directly: coordinator and member would call each other in the middle of their work.
        self._loop.after(0, call)

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - for the type checker
        try:
            sock, address = self._listener.accept()
        except OSError:
            # Gone again, or out of descriptors: then the oldest stranger makes room.
            self._evict()
            return
        if len(self._strangers) >= STRANGERS:
            self._evict()
        handshake = ServerHandshake(self._contract.token)
        connection = Connection(
            self._loop,
            sock,
            lambda answer: self._prove(connection, handshake, answer, str(address[0])),
            lambda _: self._expire(connection),
        )
        self._strangers.append(connection)
        self._loop.after(HANDSHAKE, lambda: self._expire(connection))
        connection.send_raw(handshake.greeting)

    def _evict(self) -> None:
        if self._strangers:
            self._strangers.popleft().close()

    def _expire(self, connection: Connection) -> None:
        if connection in self._strangers:
            self._strangers.remove(connection)
            connection.close()

    def _prove(self, connection: Connection, handshake: ServerHandshake, answer: bytes, address: str) -> None:
        try:
            proof, session = handshake.finish(answer)
        except WrongTokenError as error:
            connection.send_raw(frame(REFUSED))
            self._warn(address)
            raise WireError("wrong token") from error
        connection.send_raw(proof)
        connection.authenticated(session, lambda message: self._join(connection, session, message, address))

    def _warn(self, address: str) -> None:
        self._intruders += 1
        if self._loop.awake - self._warned > WARN_EVERY:
            self._warned = self._loop.awake
            times = f" ({self._intruders} times so far)" if self._intruders > 1 else ""
            self._console.say(f"refused a node at {address} with a wrong STACK_TOKEN{times}; going on without it")

    def _join(self, connection: Connection, session: Session, message: Message, address: str) -> None:
        self._strangers.remove(connection)
        try:
            node = self.coordinator.join(message, address.removeprefix("::ffff:"))
        except LaunchError as error:
            self._console.say(f"refused a node at {address}: {error}")
            connection.send({"type": "refused", "code": error.exit_code, "sentence": str(error)})
            connection.close()
            return
        self._nodes[node] = connection
        self._member.interface = self._member.interface or connection.interface
        connection.authenticated(session, lambda message: self._hear(node, connection, message))
        connection.on_closed = lambda why: self._closed(node, connection, why)
        connection.send({"type": "welcome"})
        self.coordinator.joined(node)

    def _hear(self, node: int, connection: Connection, message: Message) -> None:
        if message["type"] == "bye":
            connection.close()
            self._closed(node, connection, "it left")
        elif self._nodes.get(node) is connection:
            self.coordinator.receive(node, message)

    def _closed(self, node: int, connection: Connection, why: str) -> None:
        if self._nodes.get(node) is connection:
            del self._nodes[node]
            self.coordinator.lost(node, why)

    def _leave(self, code: int, waited: float = 0.0) -> None:
        """End node 0, once the others have taken the verdict."""
        waiting = [node for node in self._nodes if not self.coordinator.seats[node].gone]
        if self.coordinator.over and waiting and waited < LINGER:
            self._loop.after(0.02, lambda: self._leave(code, waited + 0.02))
            return
        for connection in self._nodes.values():
            connection.close()
        self._loop.finish(code)
