"""How nodes find each other, and who is kept out."""

import contextlib
import os
import random
import re
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest

from tests.support.launchers import Job
from tests.support.waiting import until

pytestmark = pytest.mark.needs("linux")  # the drills find processes through /proc


SLEEP = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1.5)")


def test_a_late_node_still_joins(job: Job) -> None:
    first = job.node(0, "true")
    until(lambda: re.search(r"waiting for node 1 of 2 \(\d+ s of 20 s\)", first.err))
    second = job.node(1, "true")
    assert [node.wait() for node in (first, second)] == [0, 0]


def test_node_0_may_be_the_late_one(job: Job) -> None:
    second = job.node(1, "true")
    until(lambda: "waiting for node 0 at 127.0.0.1" in second.err)
    assert "connection refused" in second.err
    first = job.node(0, "true")
    assert [node.wait(10) for node in (first, second)] == [0, 0]


def test_a_node_that_starts_60_seconds_late_still_joins(late_node: Future[list[int]]) -> None:
    assert late_node.result(120) == [0, 0]


def test_a_node_that_never_comes_is_named(job: Job) -> None:
    first = job.node(0, "true", nodes=3, STACK_TIMEOUT="2")
    second = job.node(1, "true", nodes=3, STACK_TIMEOUT="20")
    assert [node.wait(6) for node in (first, second)] == [75, 75]
    report = job.failure()
    assert (report["reason"], report["node"]) == ("peers-missing", 2)
    assert report["sentence"] == "node 2 of 3 never came within 2 s"
    assert report["sentence"] in second.err


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("127.0.0.1:9", "connection refused"),
        ("no-such-host.invalid:29400", "name"),
        ("255.255.255.255:29400", "network is unreachable"),
    ],
)
def test_a_node_0_that_never_comes_is_named(job: Job, place: str, why: str) -> None:
    node = job.node(1, "true", STACK_RENDEZVOUS=place, STACK_TIMEOUT="1")
    assert node.wait() == 75
    assert re.search(rf"node 0 of 2 never came within 1 s \({re.escape(place)}: .*{why}", node.err)
    assert job.failure()["reason"] == "peers-missing"


def test_a_node_with_a_wrong_token_is_refused(job: Job) -> None:
    first = job.node(0, sys.executable, "-c", job.READY)
    wrong = [job.node(1, "true", STACK_TOKEN="not the token of this run") for _ in range(3)]
    assert [node.wait() for node in wrong] == [78, 78, 78]
    assert all("STACK_TOKEN is not the one that node 0" in node.err for node in wrong)
    assert first.running
    assert first.err.count("wrong STACK_TOKEN") == 1, "such lines are rate-limited"
    second = job.node(1, sys.executable, "-c", job.READY)
    job.all_started()
    assert job.node(1, "true", STACK_TOKEN="not the token of this run").wait() == 78
    job.go()
    assert [node.wait() for node in (first, second)] == [0, 0]
    assert "drills" not in first.err + second.err + wrong[0].err, "a token is never printed"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"STACK_RUN": "another"}, "STACK_RUN=another, but node 0 has"),
        ({"STACK_NODES": "3"}, "STACK_NODES=3, but node 0 has 2"),
        ({"STACK_FRAMEWORK": "tensorflow"}, "STACK_FRAMEWORK=tensorflow, but node 0 has torch"),
    ],
)
def test_nodes_of_different_jobs_do_not_mix(job: Job, changes: dict[str, Any], said: str) -> None:
    first = job.node(0, "true")
    assert job.node(1, "true", **changes).wait() == 78
    assert said in job.nodes[1].err
    second = job.node(1, "true")
    assert [node.wait() for node in (first, second)] == [0, 0]


def test_a_second_node_of_the_same_rank_is_refused(job: Job) -> None:
    first, second = job.node(0, *SLEEP, nodes=3), job.node(1, *SLEEP, nodes=3)
    until(lambda: "waiting for node 2 of 3" in first.err)
    double = job.node(1, *SLEEP, nodes=3)
    assert double.wait() == 78
    assert "STACK_NODE_RANK=1: a live node on host" in double.err
    third = job.node(2, *SLEEP, nodes=3)
    assert [node.wait() for node in (first, second, third)] == [0, 0, 0]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_node_that_dies_before_the_start_may_rejoin(job: Job, victim: int) -> None:
    first, second = job.node(0, "true", nodes=3), job.node(1, "true", nodes=3)
    until(lambda: "waiting for node 2 of 3" in first.err)
    (first, second)[victim].signal(signal.SIGKILL)
    until(lambda: "before the start" in (second, first)[victim].err)
    again = job.node(victim, "true", nodes=3)
    third = job.node(2, "true", nodes=3)
    assert [node.wait() for node in (again, third, (second, first)[victim])] == [0, 0, 0]


def test_strangers_do_not_disturb(job: Job) -> None:
    """Garbage, silence, one byte at a time, and a flood: before the start, and while the job runs."""
    first = job.node(0, *SLEEP)
    place = ("127.0.0.1", job.port)
    until(lambda: _opens(place))
    stop = threading.Event()
    seed = random.Random(1)

    def garbage() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), socket.create_connection(place, 1) as sock:
                sock.sendall(
                    seed.choice([b"GET / HTTP/1.1\r\n\r\n", seed.randbytes(5000), b"\0\0\0\0" * 50, b"\xff" * 8])
                )
                sock.recv(100)

    def slowly() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), socket.create_connection(place, 1) as sock:
                for byte in b"\0\0\0\x40" + bytes(60):
                    sock.sendall(bytes([byte]))
                    time.sleep(0.05)

    def silently() -> None:
        held: list[socket.socket] = []
        while not stop.is_set():
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(place, 1))
            time.sleep(0.002)
        for sock in held:
            sock.close()

    threads = [threading.Thread(target=target) for target in (garbage, slowly, silently)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)
        second = job.node(1, *SLEEP)
        job.all_started()
        assert [node.wait() for node in (first, second)] == [0, 0], first.err
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_replayed_connection_is_refused(job: Job) -> None:
    """Record all that a real node sends, through a proxy; then send it again."""
    recorded = bytearray()
    front = socket.create_server(("127.0.0.1", 0))
    place = ("127.0.0.1", job.port)

    def relay(source: socket.socket, sink: socket.socket, keep: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if keep:
                    recorded.extend(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    first = job.node(0, *SLEEP, nodes=3)
    until(lambda: _opens(place))
    second = job.node(1, *SLEEP, nodes=3, STACK_RENDEZVOUS=f"127.0.0.1:{front.getsockname()[1]}")
    with front, front.accept()[0] as client, socket.create_connection(place) as server:
        threads = [
            threading.Thread(target=relay, args=(client, server, True)),
            threading.Thread(target=relay, args=(server, client, False)),
        ]
        for thread in threads:
            thread.start()
        until(lambda: len(recorded) > 200)
        second.signal(signal.SIGKILL)
        until(lambda: "node 1 left before the start" in first.err)
        with socket.create_connection(place, 3) as replay:
            replay.sendall(recorded)
            answer = b""
            with contextlib.suppress(OSError):
                while data := replay.recv(1000):
                    answer += data
        assert b"wrong token" in answer
        for thread in threads:
            thread.join()
    assert "wrong STACK_TOKEN" in first.err
    rest = [job.node(1, "true", nodes=3), job.node(2, "true", nodes=3)]
    assert [node.wait() for node in (first, *rest)] == [0, 0, 0]


def test_messages_of_an_intruder_in_the_stream_end_only_that_node(job: Job) -> None:
    """A forged message on a joined node's connection costs that connection, and the job says which node."""
    front = socket.create_server(("127.0.0.1", 0))
    first = job.node(0, *SLEEP)
    until(lambda: _opens(("127.0.0.1", job.port)))
    second = job.node(1, *SLEEP, STACK_RENDEZVOUS=f"127.0.0.1:{front.getsockname()[1]}")
    with front, front.accept()[0] as client, socket.create_connection(("127.0.0.1", job.port)) as server:

        def back() -> None:
            with contextlib.suppress(OSError):
                while data := server.recv(65536):
                    client.sendall(data)
                client.close()

        thread = threading.Thread(target=back)
        thread.start()
        for _ in range(2):
            server.sendall(client.recv(65536))
        server.sendall((100).to_bytes(4, "big") + os.urandom(100))
        assert first.wait(8) in (0, 75)
        client.close()
        thread.join()
    assert "node 1" in first.err
    assert "authentication" in first.err
    second.wait(8)


def _opens(place: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(place, 1).close()
        return True
    return False
