"""Node 0's decisions: who has joined, when to start, who failed first, when all is over. No sockets, no processes."""

import time
from collections.abc import Callable
from typing import Any

from stackrt.contract import CONFIG, PEERS, Reason
from stackrt.frameworks import FRAMEWORKS
from stackrt.launch import cpus, failure
from stackrt.launch.environment import Contract
from stackrt.launch.errors import ConfigError, PeersError
from stackrt.launch.failure import BY_STOP, Failure, Report
from stackrt.launch.layout import Layout, NodeLayout
from stackrt.launch.output import Console
from stackrt.launch.seats import Seat, agree, named
from stackrt.launch.timing import FIRST_NEWS, NEWS, PROBLEM_WAIT, SETTLE, SETTLE_CAUSE, SILENCE, SUSPICIOUS
from stackrt.launch.wire import Message
from stackrt.signals import TOGETHER


class Coordinator:
    """Decides for the job; `send` reaches a node's member, node 0's own included."""

    def __init__(
        self,
        contract: Contract,
        port: int,
        awake: Callable[[], float],
        send: Callable[[int, Message], None],
        prepare: Callable[[Layout, Callable[[str | None], None]], None],
        console: Console,
        *,
        agent_store: bool,
    ) -> None:
        """Args: as their names say; `agent_store` is whether this launcher holds torch's store, and not rank 0."""
        self._contract, self._port = contract, port
        self._agent_store = agent_store and FRAMEWORKS[contract.framework].server == "store"
        self._awake, self._send, self._prepare, self._console = awake, send, prepare, console
        self.seats: dict[int, Seat] = {}
        self.started = self.over = False
        self._preparing = False
        self._failures: list[Failure] = []
        self._failed_at = 0.0
        self._stop_signal: int | None = None
        self._network: Message | None = None
        self._noticed: dict[int, float] = {}
        self._opened = awake()
        self._next_news = self._opened + FIRST_NEWS
        self._problem_deadline = float("inf")

    def join(self, join: Message, address: str) -> int:
        """Take in a node, or refuse it; return its index.

        Raises:
            ConfigError: it belongs to another job, disagrees with node 0, or is there already.
            PeersError: too late.
        """
        node = agree(self._contract, join)
        if node in self.seats and not self.over:
            raise ConfigError(
                f"STACK_NODE_RANK={node}: a live node on host {self.seats[node].host} has this rank already; "
                "give every node its own"
            )
        if self.over or self._preparing or self.started:
            raise PeersError("the job has started or ended without this node; start it again as a new attempt")
        self.seats[node] = Seat(join, address, self._awake())
        return node

    def joined(self, node: int) -> None:
        """Go on after a node has joined and can be sent to."""
        self._ping(node)
        if self.seats[node].problem is not None:
            self._problem_deadline = min(self._problem_deadline, self._awake() + PROBLEM_WAIT)
        if len(self.seats) < self._contract.nodes:
            return
        if self._has_problem():
            self._fail_for_problem()
            return
        self._preparing = True
        self._prepare(self._layout(), self._prepared)

    def receive(self, node: int, message: Message) -> None:
        """Take a message from a node that has joined."""
        seat = self.seats.get(node)
        if seat is None or self.over:
            return
        seat.heard = self._awake()
        if seat.gone:
            return
        kind = message["type"]
        if kind == "pong":
            seat.measure_clock(message, time.time())
        elif kind == "failed":
            self._rank_failed(node, seat, message)
        elif kind == "ended":
            seat.ended, seat.clean = True, bool(message["clean"])
            self._check_end()
        elif kind == "stop":
            self._stop(node, int(message["signal"]), bool(message["now"]))
        elif kind == "notice":
            self._notice(int(message["signal"]))
        elif kind == "network":
            known = {key: message[key] for key in ("uses", "kept", "sentence")} | {"node": node}
            if self._network is None or (self._network["kept"] and not known["kept"]):
                self._network = known  # of all nodes the worst
        elif kind == "problem":
            self._fail_now(Reason.CONFIG, CONFIG, str(message["sentence"]), node=node, host=seat.host)
        elif kind == "cut-off":
            self._verdict(int(message["code"]), message["report"])

    def lost(self, node: int, why: str) -> None:
        """Take note that a node's connection has ended, or that it has been silent for too long."""
        seat = self.seats.get(node)
        if seat is None or self.over or seat.gone:
            return
        if not self.started and not self._preparing:
            del self.seats[node]
            self._console.say(f"node {node} left before the start ({why}); waiting for it again")
            return
        seat.gone = True
        if seat.ended and seat.clean:
            return
        if self._stop_signal is None:
            sentence = f"{named([node], self._contract.nodes)} (host {seat.host}) was lost: {why}"
            when = time.time() - (self._awake() - seat.heard)
            report = self._report(sentence, when, reason=Reason.NODE_LOST, code=PEERS, node=node, host=seat.host)
            self._failure(Failure(when, True, PEERS, report))
        self._check_end()

    def tick(self) -> None:
        """Look at the clock; call a few times a second."""
        now = self._awake()
        if self.over:
            return
        for node, seat in list(self.seats.items()):
            silent = now - seat.heard
            if node != 0 and not seat.gone and silent > SILENCE:
                self.lost(node, f"nothing heard from it for {silent:.0f} s")
        if self._failures:
            self._decide(now)
        elif not self.started:
            self._wait(now)

    def ping(self) -> None:
        """Send every node a heartbeat; call once a second."""
        for node in list(self.seats):
            self._ping(node)

    def _ping(self, node: int) -> None:
        if node != 0:
            self._send(node, {"type": "ping", "sent": time.time()})

    def _wait(self, now: float) -> None:
        waited, ours = now - self._opened, self._contract
        missing = [node for node in range(ours.nodes) if node not in self.seats]
        if now > self._problem_deadline and self._has_problem():
            self._fail_for_problem()
        elif missing and waited > ours.timeout:
            sentence = f"{named(missing, ours.nodes)} never came within {ours.timeout:g} s"
            self._fail_now(Reason.PEERS_MISSING, PEERS, sentence, node=missing[0])
        elif missing and now >= self._next_news:
            self._next_news = now + NEWS
            self._console.say(f"waiting for {named(missing, ours.nodes)} ({waited:.0f} s of {ours.timeout:g} s)")

    def _has_problem(self) -> bool:
        return any(seat.problem is not None for seat in self.seats.values())

    def _fail_for_problem(self) -> None:
        node, seat = next((node, seat) for node, seat in self.seats.items() if seat.problem is not None)
        sentence = f"node {node}: {seat.problem}" if self._contract.nodes > 1 else str(seat.problem)
        self._fail_now(Reason.CONFIG, CONFIG, sentence, node=node, host=seat.host)

    def _layout(self) -> Layout:
        ours, seats = self._contract, [self.seats[node] for node in range(self._contract.nodes)]
        threads = cpus.threads([(seat.procs, seat.cpus) for seat in seats])
        nodes = tuple(
            NodeLayout(seat.procs, seat.address, seat.ports, share) for seat, share in zip(seats, threads, strict=True)
        )
        address, attempt = seats[0].address, self._attempt()
        return Layout(
            ours.run,
            attempt,
            ours.framework,
            ours.device,
            address,
            self._port,
            nodes,
            agent_store=self._agent_store,
        )

    def _attempt(self) -> int:
        # Replaced nodes may each know another attempt; the highest is the newest.
        return max([self._contract.attempt, *(seat.attempt for seat in self.seats.values())])

    def _prepared(self, error: str | None) -> None:
        if error is not None:
            self._fail_now(Reason.CONFIG, CONFIG, error, node=0)
        elif not self.over and not self.started and not self._failures:
            self.started, layout = True, self._layout()
            nodes = [[node.procs, node.address, list(node.ports), node.threads] for node in layout.nodes]
            start = {"address": layout.address, "port": layout.port, "attempt": layout.attempt, "nodes": nodes}
            start["agent_store"] = layout.agent_store
            self._broadcast({"type": "start"} | start)

    def _rank_failed(self, node: int, seat: Seat, message: Message) -> None:
        code, rank, local_rank = int(message["code"]), int(message["rank"]), int(message["local_rank"])
        if self._stop_signal is not None:
            return
        when = float(message["time"]) - seat.offset
        sentence = failure.rank_sentence(rank, node, local_rank, seat.host, code, message["raised"], message["known"])
        where: dict[str, Any] = {"node": node, "rank": rank, "local_rank": local_rank, "host": seat.host}
        where |= {"signal": failure.signal_name(-code) if code < 0 else None, "last_lines": message["last_lines"]}
        exit_code = failure.exit_code(code)
        report = self._report(sentence, when, reason=Reason.RANK_FAILED, code=failure.launcher_code(code), **where)
        echo, inferred = bool(message["echo"]), bool(message["inferred"])
        self._failure(Failure(when, bool(message["cause"]), exit_code, report, echo, inferred))

    def _failure(self, new: Failure) -> None:
        if not self._failures:
            self._failed_at = self._awake()
            self._broadcast({"type": "end"})
        self._failures.append(new)

    def _decide(self, now: float) -> None:
        """Give the verdict once no earlier failure can still be reported."""
        chosen, age = failure.first(self._failures), now - self._failed_at
        if not chosen.cause:
            quiet = [now - seat.heard for node, seat in self.seats.items() if node != 0 and not seat.gone]
            if max(quiet, default=0) > SUSPICIOUS:
                # Perhaps these ranks failed because that node was cut off; a little later we know.
                return
            # Who stopped the job may have signalled its ranks, too, and we hear of it a little later.
            if age < SETTLE and (chosen.exit_code in BY_STOP or not self._all_ended()):
                return
        elif age < SETTLE_CAUSE:
            return
        self._verdict(int(chosen.report["exit_code"]), chosen.report)

    def _check_end(self) -> None:
        if self._stop_signal is not None:
            if self._all_ended():
                self._verdict(128 + self._stop_signal, None)
        elif self.started and not self._failures and self._all_ended():
            self._verdict(0, None)

    def _all_ended(self) -> bool:
        return all(seat.ended or seat.gone for seat in self.seats.values())

    def _stop(self, node: int, signal: int, now: bool) -> None:
        if not self.started:
            if node != 0:
                self.lost(node, f"stopped by {failure.signal_name(signal)}")
            return
        if self._failures and not now:
            if any(known.exit_code not in BY_STOP for known in self._failures):
                return  # the ranks are being ended already, and sooner
            self._failures.clear()  # who stopped the job signalled its ranks, too, and theirs came first
        if self._stop_signal is None and not self._failures:
            self._stop_signal = signal
        self._broadcast({"type": "stop", "signal": signal, "now": now})
        self._check_end()

    def _notice(self, signal: int) -> None:
        now = self._awake()
        if self.started and now - self._noticed.get(signal, -TOGETHER) >= TOGETHER:
            self._noticed[signal] = now
            self._broadcast({"type": "notice", "signal": signal})

    def _report(self, sentence: str, when: float, **where: Any) -> Report:
        return failure.report(self._contract.run, self._attempt(), sentence=sentence, when=when, **where)

    def _fail_now(self, reason: Reason, code: int, sentence: str, **where: Any) -> None:
        self._verdict(code, self._report(sentence, time.time(), reason=reason, code=code, **where))

    def _verdict(self, code: int, report: Report | None) -> None:
        if not self.over:
            self.over = True
            self._broadcast({"type": "verdict", "code": code, "report": report, "network": self._network})

    def _broadcast(self, message: Message) -> None:
        for node in list(self.seats):
            self._send(node, message)
