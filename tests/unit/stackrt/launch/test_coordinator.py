"""Node 0's decisions, on a clock that the test turns."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackrt.launch.coordinator import Coordinator
from stackrt.launch.environment import Contract
from stackrt.launch.errors import ConfigError, PeersError
from stackrt.launch.layout import Layout
from stackrt.launch.seats import Seat, named


class Words:
    """A console that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


class Drill:
    def __init__(self, nodes: int = 2, prepare: Callable[..., None] | None = None) -> None:
        self.now, self.sent = 0.0, list[tuple[int, dict[str, Any]]]()
        self.words = Words()
        self.contract = Contract("run", 1, nodes, 0, 2, "cpu", "node-0", 1, "t" * 16, "torch", Path("out"), 60.0, "h")
        self.coordinator = Coordinator(
            self.contract,
            4000,
            lambda: self.now,
            lambda node, message: self.sent.append((node, message)),
            prepare or (lambda layout, done: done(None)),
            self.words,  # type: ignore[arg-type]
            agent_store=True,
        )

    def join(self, node: int, **changes: Any) -> int:
        message = {"run": "run", "nodes": self.contract.nodes, "framework": "torch", "node": node, "procs": 2}
        message |= {"attempt": 1, "ports": [], "host": f"host-{node}", "problem": None}
        message |= {"cpus": [f"machine-{node}", [0, 1, 2, 3], None, ""]}
        joined = self.coordinator.join(message | changes, f"10.0.0.{node}")
        self.coordinator.joined(joined)
        return joined

    def start(self) -> "Drill":
        for node in range(self.contract.nodes):
            self.join(node)
        assert self.kinds() == ["start"]
        return self

    def kinds(self, node: int = 0) -> list[str]:
        return [message["type"] for to, message in self.sent if to == node]

    def verdict(self, node: int = 0) -> tuple[int, dict[str, Any] | None] | None:
        found = [(m["code"], m["report"]) for to, m in self.sent if to == node and m["type"] == "verdict"]
        assert len(found) <= 1
        return found[0] if found else None

    def later(self, seconds: float, silent: tuple[int, ...] = ()) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            for node, seat in self.coordinator.seats.items():
                if node not in silent:
                    seat.heard = self.now
            self.coordinator.tick()

    def fail(self, node: int, local_rank: int, code: int, cause: bool = False, at: float | None = None) -> None:
        when = time.time() if at is None else at
        message = {
            "type": "failed",
            "rank": 2 * node + local_rank,
            "local_rank": local_rank,
            "code": code,
            "echo": False,
            "raised": None,
            "known": None,
            "inferred": False,
        }
        self.coordinator.receive(node, message | {"time": when, "cause": cause, "last_lines": ["x"]})

    def end(self, node: int, clean: bool = True) -> None:
        self.coordinator.receive(node, {"type": "ended", "clean": clean})


def test_starts_when_all_are_there_with_the_highest_attempt() -> None:
    drill = Drill()
    drill.join(0)
    assert drill.kinds() == []
    drill.join(1, attempt=4, procs=3)
    start = dict(drill.sent)[1]
    expected = {"type": "start", "address": "10.0.0.0", "port": 4000, "attempt": 4}
    expected["agent_store"] = True
    assert start == expected | {"nodes": [[2, "10.0.0.0", [], 2], [3, "10.0.0.1", [], 1]]}


def test_all_clean_is_0() -> None:
    drill = Drill().start()
    drill.end(0)
    assert drill.verdict() is None
    drill.end(1)
    assert drill.verdict() == drill.verdict(1) == (0, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": "b"}, "STACK_RUN=b"),
        ({"nodes": 9}, "STACK_NODES=9"),
        ({"framework": "horovod"}, "STACK_FRAMEWORK=horovod"),
        ({"node": 7}, "STACK_NODE_RANK=7"),
    ],
)
def test_who_disagrees_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Drill().join(**({"node": 1} | changes))


def test_a_live_rank_is_refused_and_a_lost_one_may_return_before_the_start() -> None:
    drill = Drill(3)
    drill.join(1)
    with pytest.raises(ConfigError, match="a live node on host host-1"):
        drill.join(1)
    drill.coordinator.lost(1, "connection closed")
    assert "waiting for it again" in drill.words.lines[-1]
    drill.join(1)


def test_too_late_is_told() -> None:
    drill = Drill(2).start()
    drill.coordinator.lost(1, "connection closed")
    drill.later(1)
    with pytest.raises(PeersError):
        drill.join(1)


def test_the_missing_are_named_while_waiting_and_at_the_end() -> None:
    drill = Drill(4)
    drill.join(0)
    drill.join(2)
    drill.later(61)
    waits = [line for line in drill.words.lines if line.startswith("waiting for nodes 1, 3 of 4")]
    assert len(waits) == 4
    code, report = drill.verdict(2) or (0, None)
    assert code == 75
    assert report is not None
    assert report["sentence"] == "nodes 1, 3 of 4 never came within 60 s"


def test_a_problem_waits_for_the_others_but_not_for_ever() -> None:
    drill = Drill(2)
    drill.join(0, problem="no GPU")
    drill.later(9)
    assert drill.verdict() is None
    drill.later(2)
    assert (drill.verdict() or (0,))[0] == 78


def test_a_problem_is_told_to_all() -> None:
    drill = Drill(2)
    drill.join(0)
    drill.join(1, problem="no GPU")
    code, report = drill.verdict() or (0, None)
    assert code == 78
    assert report is not None
    assert (report["sentence"], report["node"], report["reason"]) == ("node 1: no GPU", 1, "config")


def test_others_end_at_once_and_the_verdict_waits_for_a_cause() -> None:
    drill = Drill().start()
    drill.fail(0, 1, 1)
    assert drill.kinds(1)[-1] == "end"
    drill.later(0.5)
    assert drill.verdict() is None
    drill.fail(1, 0, -9, cause=True)
    drill.later(0.2)
    code, report = drill.verdict() or (0, None)
    assert code == 137
    assert report is not None
    assert (report["rank"], report["signal"], report["last_lines"]) == (2, "SIGKILL", ["x"])


def test_clock_offsets_decide_who_was_first() -> None:
    drill = Drill().start()
    now = time.time()
    # Node 1's clock is 100 s ahead.
    drill.coordinator.receive(1, {"type": "pong", "sent": now, "time": now + 100})
    drill.fail(0, 0, 4, at=now - 1)
    drill.fail(1, 0, 5, at=now + 98)
    drill.later(1.2)
    assert (drill.verdict() or (0,))[0] == 5


def test_the_shortest_round_trip_sets_the_clock() -> None:
    seat = Seat(
        {"host": "h", "procs": 1, "attempt": 1, "ports": [], "problem": None, "cpus": ["m", [0], None, ""]}, "a", 0.0
    )
    seat.measure_clock({"sent": 10.0, "time": 20.0}, 14.0)
    assert seat.offset == 8.0
    seat.measure_clock({"sent": 30.0, "time": 35.5}, 31.0)
    assert seat.offset == 5.0
    seat.measure_clock({"sent": 40.0, "time": 99.0}, 42.0)
    assert seat.offset == 5.0


def test_a_verdict_does_not_wait_when_all_have_ended() -> None:
    drill = Drill(1).start()
    drill.fail(0, 0, 3)
    drill.end(0, clean=False)
    drill.later(0.1)
    assert (drill.verdict() or (0,))[0] == 3


def test_silence_of_8_seconds_is_loss() -> None:
    drill = Drill().start()
    drill.later(7.5, silent=(1,))
    assert drill.verdict() is None
    drill.later(1.5, silent=(1,))
    code, report = drill.verdict() or (0, None)
    assert code == 75
    assert report is not None
    assert (report["reason"], report["node"], report["host"]) == ("node-lost", 1, "host-1")
    assert drill.verdict(1) == drill.verdict(0), "should it come back, it is told too"


def test_an_echo_is_not_blamed_while_a_node_is_silent() -> None:
    drill = Drill().start()
    drill.later(3, silent=(1,))
    drill.fail(0, 0, 1)
    drill.later(2, silent=(1,))
    assert drill.verdict() is None
    drill.later(5, silent=(1,))
    code, report = drill.verdict() or (0, None)
    assert code == 75
    assert report is not None
    assert report["node"] == 1


def test_a_silent_node_that_speaks_again_clears_itself() -> None:
    drill = Drill().start()
    drill.later(3, silent=(1,))
    drill.fail(0, 0, 7)
    drill.later(1.2, silent=(1,))
    drill.later(0.1)
    assert (drill.verdict() or (0,))[0] == 7


def test_a_node_that_is_done_may_go() -> None:
    drill = Drill().start()
    drill.end(1)
    drill.coordinator.lost(1, "connection closed")
    drill.end(0)
    assert drill.verdict() == (0, None)


def test_a_stop_reaches_all_and_hides_failures() -> None:
    drill = Drill().start()
    drill.coordinator.receive(1, {"type": "stop", "signal": 15, "now": False})
    assert drill.kinds()[-1] == "stop"
    drill.fail(0, 0, 1)
    drill.end(0, clean=False)
    drill.coordinator.lost(1, "connection closed")
    assert drill.verdict() == (143, None)


@pytest.mark.parametrize("code", [143, -15, 130])
def test_a_rank_that_ends_by_itself_as_a_stop_would_end_it_has_failed(code: int) -> None:
    drill = Drill().start()
    drill.fail(0, 0, code)
    drill.later(3)
    found = drill.verdict()
    assert found is not None
    assert found[0] == 1
    assert found[1] is not None
    assert (found[1]["reason"], found[1]["exit_code"]) == ("rank-failed", 1)


def test_a_stop_during_a_failure_does_not_lengthen_it() -> None:
    drill = Drill().start()
    drill.fail(0, 0, 3)
    drill.coordinator.receive(1, {"type": "stop", "signal": 15, "now": False})
    assert "stop" not in drill.kinds()
    drill.later(1.2)
    assert (drill.verdict() or (0,))[0] == 3


def test_a_helper_that_fails_ends_the_job() -> None:
    def prepare(_: Layout, done: Callable[[str | None], None]) -> None:
        done("no horovod")

    drill = Drill(1, prepare)
    drill.join(0)
    assert (drill.verdict() or (0,))[0] == 78


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([1], "node 1 of 20"),
        ([1, 3], "nodes 1, 3 of 20"),
        (list(range(12)), "nodes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … of 20"),
    ],
)
def test_named(nodes: list[int], said: str) -> None:
    assert named(nodes, 20) == said
