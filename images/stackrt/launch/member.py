"""One node's part in the job: does what node 0 decides, and tells it what happens here."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from stackrt.contract import PEERS, Reason
from stackrt.frameworks import FRAMEWORKS
from stackrt.launch import cpus, failure, interfaces, nccl
from stackrt.launch.environment import Contract, is_loopback
from stackrt.launch.errors import ConfigError
from stackrt.launch.failure import Report
from stackrt.launch.layout import Layout, NodeLayout
from stackrt.launch.loop import Loop
from stackrt.launch.output import Console
from stackrt.launch.ports import Ports
from stackrt.launch.raised import is_echo
from stackrt.launch.rank import Rank
from stackrt.launch.rank_env import rank_env
from stackrt.launch.rank_group import Ranks
from stackrt.launch.timing import FAILURE_GRACE, NETWORK_LOOK
from stackrt.launch.wire import Message
from stackrt.signals import NOTICES, TOGETHER, for_rank

PYTHON_RAISED = 1
"""Exit code of a Python program that an exception ends."""

LEAVING = 10.0
"""Seconds that a rank may take to leave once it has raised; what it printed before that, it caught."""


class Member:
    """This node, from joining to its exit code."""

    def __init__(
        self,
        loop: Loop,
        contract: Contract,
        device: str,
        command: Sequence[str],
        grace: float,
        *,
        bind: bool,
        ranks: Ranks,
        ports: Ports,
        console: Console,
    ) -> None:
        self._loop, self._contract, self._device = loop, contract, device
        self._command, self._grace, self._bind = command, grace, bind
        self._ranks, self._ports, self._console = ranks, ports, console
        self._layout: Layout | None = None
        self._stop_signal: int | None = None
        self._verdict: int | None = None
        self._network_told = False
        self._failing_since: float | None = None
        self._stops_since: float | None = None
        """When the first stop signal came to this launcher itself, on the system's monotonic clock."""
        self.interface = ""
        """The network interface that leads to the other nodes; set by the link, if it can tell."""
        self.send: Callable[[Message], None] = lambda _: None
        """Tells node 0; set by the link."""
        self.leave: Callable[[int], None] = loop.finish
        """Ends this launcher with an exit code; set by the link."""
        ranks.on_exit, ranks.on_ended = self._rank_ended, self._ranks_ended

    @property
    def started(self) -> bool:
        """Whether the job has started here."""
        return self._layout is not None

    def join_message(self, problem: str | None) -> Message:
        """Return what node 0 needs to know of this node; `problem` says why it can't run, if so."""
        ours = self._contract
        ports = self._ports.reserve(ours.procs * FRAMEWORKS[ours.framework].ports_per_rank)
        message: Message = {"type": "join", "run": ours.run, "attempt": ours.attempt, "nodes": ours.nodes}
        message |= {"node": ours.node, "procs": ours.procs, "framework": ours.framework, "ports": ports}
        return message | {"host": ours.machine, "problem": problem, "cpus": cpus.usable()}

    def receive(self, message: Message) -> None:
        """Do what node 0 says."""
        kind = message["type"]
        if kind == "ping":
            self.send({"type": "pong", "sent": message["sent"], "time": time.time()})
        elif kind == "start" and not self.started:
            self._start(message)
        elif kind == "end":
            self._end_ranks()
        elif kind == "stop" and self._verdict is None:
            self._stop(int(message["signal"]), bool(message["now"]))
        elif kind == "notice":
            self._ranks.notify(int(message["signal"]))
        elif kind == "verdict":
            self.conclude(int(message["code"]), message["report"], message["network"])

    def on_signal(self, number: int) -> None:
        """Act on a signal to this launcher: a first stop asks the ranks of all nodes to end, a later one kills them."""
        name = failure.signal_name(number)
        if number in NOTICES:
            self._console.say(f"{name}: {'passing it on to every rank' if self.started else 'no rank to pass it to'}")
            self.send({"type": "notice", "signal": number})
            return
        now, first = time.monotonic(), self._stops_since
        if first is None:
            # A stop that came from another node is no first signal: whoever ends a job often signals every node.
            self._stops_since = now
        elif now - first < TOGETHER or number == signal.SIGHUP:
            return  # a terminal that closes may send SIGHUP twice: once itself, once through its shell
        failing = self._failing_since is not None and now - self._failing_since > TOGETHER
        again = first is not None or self._verdict is not None or failing
        self.send({"type": "stop", "signal": number, "now": again})
        if not self.started:
            self._console.say(f"{name} before the start: nothing to stop")
            self.leave(128 + number)
            return
        left = "killing the ranks" if again else f"ending the ranks on all nodes, at the latest in {self._grace:g} s"
        self._console.say(f"{name}: {left}")
        self._stop(number, again)

    def link_lost(self, why: str) -> None:
        """Node 0 has gone after the start."""
        if self._verdict is not None:
            return
        if self._stop_signal is not None:
            self.conclude(128 + self._stop_signal, None)
            return
        ours, attempt = self._contract, self._layout.attempt if self._layout else self._contract.attempt
        sentence = f"node 0 of {ours.nodes} ({ours.host}) was lost: {why}"
        report = failure.report(
            ours.run,
            attempt,
            reason=Reason.NODE_LOST,
            code=PEERS,
            sentence=sentence,
            node=0,
            host=ours.host,
        )
        # It may only be cut off; if it hears us again, it must know.
        self.send({"type": "cut-off", "code": PEERS, "report": report})
        self.conclude(PEERS, report)

    def conclude(self, code: int, report: Report | None, network: Message | None = None) -> None:
        """Take the verdict on the job: write it down, end what still runs, and leave with it.

        Args:
            code: what all launchers exit with.
            report: why it failed, if so.
            network: which network NCCL took between nodes, where a profile promises one.
        """
        if self._verdict is not None:
            return
        self._verdict = code
        if code == 0 and self._contract.node == 0:
            failure.write_result(self._contract.out, network)
        if report is not None:
            self._console.say(report["sentence"])
            try:
                failure.write(report, self._contract.out)
            except OSError as error:
                if report["reason"] != Reason.CONFIG:
                    self._console.say(f"{self._contract.out}: can't write failure.json: {error.strerror}")
        if self.started and not self._ranks.ended:
            self._end_ranks()
        else:
            self.leave(code)

    def _start(self, message: Message) -> None:
        nodes = tuple(
            NodeLayout(procs, address, tuple(ports), threads) for procs, address, ports, threads in message["nodes"]
        )
        ours, attempt, address = self._contract, int(message["attempt"]), str(message["address"])
        interface = interfaces.loopback() if is_loopback(address) else self.interface
        layout = Layout(
            ours.run,
            attempt,
            ours.framework,
            self._device,
            address,
            int(message["port"]),
            nodes,
            ours.fabric,
            bool(message["agent_store"]),
            cpus.spins(),
            interface,
        )
        self._layout = layout
        if ours.node != 0:
            forget_failure(ours)
        logs, first = ours.out / "logs" / f"attempt-{attempt}", layout.first_rank(ours.node)
        errors = [str(logs / f"rank-{first + local_rank}.error.json") for local_rank in range(ours.procs)]
        base = os.environ | {"STACK_RUN": ours.run, "STACK_NODES": str(ours.nodes), "STACK_NODE_RANK": str(ours.node)}
        base |= {"STACK_PROCS": str(ours.procs), "STACK_FRAMEWORK": ours.framework, "STACK_OUT": str(ours.out)}
        envs = [rank_env(base, layout, ours.node, local_rank, errors[local_rank]) for local_rank in range(ours.procs)]
        if ours.fabric != nccl.ANY:
            self._loop.every(NETWORK_LOOK, self._look_at_network)
        self._ports.hand_over()
        try:
            files = [Path(file) for file in errors]
            self._ranks.start(self._command, envs, first, layout.world, logs, files, self._keep_to())
        except (ConfigError, OSError) as error:
            self.send({"type": "problem", "sentence": f"node {ours.node}: {error}" if ours.nodes > 1 else str(error)})
            self._ranks.kill()

    def _keep_to(self) -> list[frozenset[int]]:
        """The CPUs that each rank keeps to: those near its GPU, unless `--bind none` or a CPU run."""
        free = [frozenset[int]()] * self._contract.procs
        if not self._bind or self._device != "cuda" or self._contract.all_gpus:
            return free
        from stackrt.launch import gpus, numa

        planned = numa.plan(gpus.bus_ids(), cpus.usable().allowed)
        if len(planned) != len(free) or not any(planned):
            self._console.say("ranks are not bound to CPUs: this machine has one NUMA node, or does not tell its GPUs'")
            return free
        said = ", ".join(f"local rank {rank}: {numa.shown(near) or 'all'}" for rank, near in enumerate(planned))
        self._console.say(f"ranks keep to the CPUs near their GPUs ({said}); --bind none leaves them free")
        return planned

    def _look_at_network(self) -> None:
        """Say once which network NCCL takes here, and tell node 0."""
        found = None if self._network_told else self._ranks.network()
        if found is not None:
            self._network_told = True
            said = nccl.sentence(found, self._contract.fabric)
            self._console.say(said)
            kept = nccl.is_promised(found.name, self._contract.fabric)
            self.send({"type": "network", "uses": str(found), "kept": kept, "sentence": said})

    def _stop(self, number: int, now: bool) -> None:
        if now:
            self._ranks.kill()
        elif self._stop_signal is None:
            self._stop_signal = number
            self._ranks.signal(for_rank(number), self._grace)

    def _end_ranks(self) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            self._tell_raised()
        if self._stop_signal is None:
            self._ranks.signal(signal.SIGTERM, FAILURE_GRACE)

    def _rank_ended(self, rank: Rank) -> None:
        code = rank.code or 0
        cause = failure.is_cause(code, rank.signalled, rank.killed)
        if code == 0 or self._stop_signal is not None or (rank.signalled and not cause):
            return
        raised = rank.raised()
        last = rank.lines.last()
        leaving = raised is not None and rank.ended_at - raised.time < LEAVING
        message = self._failed(rank, code, raised.time if raised and leaving else rank.ended_at)
        self.send(message | {"cause": cause, "echo": raised.echo if raised else is_echo("\n".join(last))})
        self._end_ranks()

    def _tell_raised(self) -> None:
        """Tell of ranks that are on their way out by themselves; to be ended now must not hide why."""
        for rank in self._ranks.running():
            raised = rank.raised()
            if raised is not None:
                message = self._failed(rank, PYTHON_RAISED, raised.time) | {"cause": False, "echo": raised.echo}
                self.send(message | {"raised": raised.text, "inferred": not raised.recorded})

    def _failed(self, rank: Rank, code: int, when: float) -> Message:
        signs = FRAMEWORKS[self._contract.framework].signs
        known = failure.known_cause(signs, code, self._device, rank.said()) if signs else None
        message: Message = {"type": "failed", "rank": rank.rank, "local_rank": rank.local_rank, "code": code}
        message["known"] = known
        return message | {"time": when, "last_lines": rank.lines.last(), "raised": None, "inferred": False}

    def _ranks_ended(self) -> None:
        self.send({"type": "ended", "clean": self._ranks.clean})
        if self._verdict is not None:
            self.leave(self._verdict)


def forget_failure(contract: Contract) -> None:
    """Remove an earlier attempt's failure.json."""
    with contextlib.suppress(OSError):
        (contract.out / "failure.json").unlink(missing_ok=True)
