"""torch's store as node 0's launcher serves it, against torch's own client and beside torch's own server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT
from tests.support.launchers import Job
from tests.support.waiting import until

SERVE = """
import sys
from stackrt.launch.loop import Loop
from stackrt.launch.output import Console, Sink
from stackrt.launch.ports import listen
from stackrt.launch.store import Store

loop = Loop()
listener = listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
store = Store(loop, listener, Console(Sink(loop, 2)))
loop.run()
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A store of ours in a process of its own: its port, and the file that holds what it says."""
    said = tmp_path / "said"
    with said.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env={**os.environ, "PYTHONPATH": str(ROOT / "images")},
            stdout=subprocess.PIPE,
            stderr=err,
        )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), said
        assert process.poll() is None, said.read_text()
    finally:
        process.kill()
        process.communicate()


def connect(port: int, seconds: float = 10) -> Any:
    from torch.distributed import TCPStore  # type: ignore[attr-defined, unused-ignore]

    return TCPStore("127.0.0.1", port, None, False, timedelta(seconds=seconds), wait_for_workers=False)


def failing(call: Callable[[], object]) -> str:
    try:
        return f"returned {call()!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition(", keys:")[0]


def conversation(store: Any) -> list[object]:
    """Every request that torch.distributed makes, and what it is answered with."""
    short = timedelta(milliseconds=200)
    store.set("key", "value")
    store.set("empty", "")
    store.append("list", "a")
    store.append("list", "b")
    store.multi_set(["one", "two"], ["1", "22"])
    return [
        store.get("key"),
        store.get("empty"),
        store.get("list"),
        store.multi_get(["two", "one"]),
        [store.add("count", amount) for amount in (5, -2, 0)],
        store.get("count"),
        store.compare_set("new", "", "first"),
        store.compare_set("new", "wrong", "second"),
        store.compare_set("new", "first", "second"),
        store.compare_set("absent", "expected", "x"),
        store.check(["key", "new"]),
        store.check(["key", "nowhere"]),
        failing(lambda: store.wait(["key", "nowhere"], short)),
        store.get("key"),
        store.delete_key("key"),
        store.delete_key("key"),
        store.num_keys(),
        failing(lambda: store.wait(["one"], short)),
        store.set("large", "x" * 3_000_000),
        len(store.get("large")),
    ]


@pytest.mark.needs("torch")
def test_it_answers_as_torchs_own(served: tuple[int, Path]) -> None:
    from torch.distributed import TCPStore  # type: ignore[attr-defined, unused-ignore]

    port, _ = served
    theirs = TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=10), wait_for_workers=False)
    assert conversation(connect(port)) == conversation(theirs)


CLIENT = """
import sys, threading
from datetime import timedelta
from torch.distributed import TCPStore
number, port = int(sys.argv[1]), int(sys.argv[2])
store = TCPStore("127.0.0.1", port, None, False, timedelta(seconds=60), wait_for_workers=False)
for _ in range(500):
    store.add("sum", 1)
store.set(f"done {number}", "x" * 100_000)
store.wait([f"done {other}" for other in range(3)])
print(sum(len(store.get(f"done {other}")) for other in range(3)), int(store.get("sum")))
"""


@pytest.mark.needs("torch")
def test_many_clients_at_once_and_one_that_is_killed_while_it_waits(served: tuple[int, Path]) -> None:
    port, _ = served
    waits = "from datetime import timedelta\nfrom torch.distributed import TCPStore\nimport sys\n"
    waits += f"s = TCPStore('127.0.0.1', {port}, None, False, timedelta(seconds=60), wait_for_workers=False)\n"
    waits += "print('up', flush=True)\ns.wait(['done 0', 'never'])"
    with subprocess.Popen([sys.executable, "-c", waits], stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout is not None
        waiting.stdout.readline()
        time.sleep(0.2)
        waiting.send_signal(signal.SIGKILL)
    argv = [sys.executable, "-c", CLIENT]
    running = [subprocess.Popen([*argv, str(n), str(port)], stdout=subprocess.PIPE, text=True) for n in range(3)]
    assert [process.communicate(timeout=90)[0] for process in running] == ["300000 1500\n"] * 3


@pytest.mark.needs("torch")
def test_strangers_do_no_harm_and_what_is_not_known_is_told(served: tuple[int, Path]) -> None:
    port, said = served
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x01\x02\x03\x04", b"\x01" + b"\xff" * 8, b""):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
            stranger.sendall(garbage)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""
    assert said.read_text() == "", "whoever does not speak the protocol is no news"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as newer:
        newer.sendall(b"\x00" + (0x3C85F7CE).to_bytes(4, "little") + b"\x77")
        assert newer.recv(100) == b""
    until(lambda: "asked for something that this launcher does not know (query 119)" in said.read_text(), 10)
    assert connect(port).add("n", 1) == 1


GOES_ON = """
import os, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
if rank:
    time.sleep(1)
    group = dist.new_group([1, 2, 3], use_local_synchronization=True)
    data = torch.ones(1)
    dist.all_reduce(data, group=group)
    print("sum", int(data), flush=True)
os._exit(0)  # torch's own teardown aborts now and then once a peer has left
"""


@pytest.mark.needs("torch", "linux")
def test_ranks_go_on_after_rank_0_has_left(job: Job) -> None:
    nodes = job.pair(sys.executable, "-c", GOES_ON)
    assert [node.wait(90) for node in nodes] == [0, 0], nodes[0].out + nodes[1].out
    assert [job.log(rank).count("sum 3") for rank in range(4)] == [0, 1, 1, 1]


@pytest.mark.needs("torch", "linux")
def test_rank_0_holds_the_store_where_that_is_asked_for(job: Job) -> None:
    """As a script does that opens a store of its own on MASTER_PORT."""
    script = (
        "import os\nfrom datetime import timedelta\nfrom torch.distributed import TCPStore\n"
        "rank, port = int(os.environ['RANK']), int(os.environ['MASTER_PORT'])\n"
        "store = TCPStore(os.environ['MASTER_ADDR'], port, 4, rank == 0, timedelta(seconds=30))\n"
        "store.add('sum', 1)\nstore.set(f'{rank}', '')\nstore.wait([str(n) for n in range(4)])\n"
        "print('sum', int(store.get('sum')), flush=True)\nstore.add('left', 1)\n"
        "while rank == 0 and int(store.add('left', 0)) < 4: pass\n"
    )
    nodes = job.pair(sys.executable, "-c", script, TORCHELASTIC_USE_AGENT_STORE="False")
    assert [node.wait(90) for node in nodes] == [0, 0], nodes[0].out + nodes[1].out
    assert all("sum 4" in job.log(rank) for rank in range(4))
