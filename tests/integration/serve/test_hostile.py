"""What a server is sent by those who mean ill, are slow or go away: it lives, and its memory is flat."""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.integration.serve.conftest import TOKEN
from tests.support.served import Served
from tests.support.waiting import until

BODIES: tuple[Any, ...] = (
    "", "{", "[]", "null", "1", '"a"', b"\xff\xfe\x00", "{}" * 1000, "[" * 50_000, '{"a":' * 20_000,
    {"prompt": None}, {"prompt": {}}, {"prompt": [[]]}, {"prompt": [-1]}, {"prompt": [10**30]}, {"prompt": ["a", 1]},
    {"prompt": "\ud800"}, {"prompt": "x" * 400_000}, {"prompt": "x" * 600_000}, {"prompt": ["x"] * 100_000},
    {"prompt": "a", "n": 10**9}, {"prompt": "a", "max_tokens": -1}, {"prompt": "a", "max_tokens": 1e308},
    {"prompt": "a", "stop": [""]}, {"prompt": "a", "stop": ["x" * 10_000]}, {"prompt": "a", "stop": {}},
    '{"prompt": "a", "temperature": NaN}', {"prompt": "a", "temperature": 1e400}, {"prompt": "a", "top_p": -1},
    {"prompt": "a", "stream_options": 3}, {"prompt": "a", "seed": 2**70}, {"prompt": "a", "logit_bias": {"1": 1}},
    {"messages": []}, {"messages": [{}]}, {"messages": [{"role": "user"}]}, {"messages": [[]] * 2000},
    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, {"messages": [{"role": "x", "content": "a"}]},
    {"instances": "x"}, {"instances": [[[1]] * 3]}, {"instances": [None]}, {"instances": [{}]}, {"inputs": {"a": 1}},
    {"instances": [[["1"] * 8] * 8]}, {"instances": [[[[1e39]] * 8] * 8]}, '{"instances": [[[[1e999]]]]}',
    {"inputs": [{"name": "picture", "shape": [-1, 8], "datatype": "FP32", "data": [1]}]},
    {"inputs": [{"name": "picture", "shape": [1] * 70, "datatype": "FP32", "data": [1]}]},
    {"inputs": [{"name": "picture", "shape": [1], "datatype": ["FP32"], "data": [1]}]},
    {"inputs": [{"name": "picture", "shape": [2**40], "datatype": "FP32", "data": []}]}, {"inputs": [[]]},
)  # fmt: skip
PATHS = (
    "/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/models/words", "/v1/models/pictures:predict",
    "/v1/models/pictures/versions/9:predict", "/v2/models/pictures/infer", "/../../etc/passwd", "/%00",
    "/" + "a" * 5000, "/health/ready", "/metrics",
)  # fmt: skip
RAW = (
    b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
)  # fmt: skip


def place(server: Served) -> tuple[str, int]:
    found = urlsplit(server.address)
    assert found.hostname
    assert found.port
    return found.hostname, found.port


def request(server: Served, draw: random.Random) -> int:
    """One fuzzed request; returns its status, 0 where the server has closed the connection."""
    body = draw.choice(BODIES)
    if isinstance(body, dict):
        body = json.dumps({"model": draw.choice(["words", "words", "no", 3, None]), **body})
    data = bytearray(body.encode(errors="surrogatepass") if isinstance(body, str) else body)
    for _ in range(draw.choice([0, 0, 0, 3])):
        if data:
            data[draw.randrange(len(data))] = draw.randrange(256)
    headers = {"authorization": f"Bearer {draw.choice([TOKEN, TOKEN, TOKEN, 'no', chr(255)])}",
               "content-type": draw.choice(["application/json", "text/xml", ""])}  # fmt: skip
    connection = http.client.HTTPConnection(*place(server), timeout=60)
    try:
        method, path = draw.choice(["POST", "POST", "GET", "DELETE", "X"]), draw.choice(PATHS)
        if draw.random() < 0.7:  # a good request but for its body
            method, path = "POST", draw.choice(PATHS[:2] if server.kind == "words" else PATHS[4:7:2])
            headers["authorization"] = f"Bearer {TOKEN}"
        connection.request(method, path, bytes(data), headers)
        answer = connection.getresponse()
        text = answer.read()
        assert b"Traceback" not in text
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def cut(server: Served, draw: random.Random) -> None:
    """A connection that sends rubbish or half a request, and goes."""
    whole = json.dumps({"model": "words", "prompt": "a", "max_tokens": 60, "stream": draw.random() < 0.5}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Length: {len(whole)}\r\n\r\n"
    sent = draw.choice(
        [*RAW, head.encode() + whole, head.encode() + whole[: draw.randrange(len(whole))], head.encode()[:40]]
    )
    with socket.create_connection(place(server), timeout=10) as connection:
        connection.sendall(sent)
        if draw.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def memory(server: Served) -> float:
    """MiB that its process has."""
    text = Path(f"/proc/{server.ready['worker']}/status").read_text()
    return next(int(row.split()[1]) / 1024 for row in text.splitlines() if row.startswith("VmRSS"))


@pytest.mark.parametrize("kind", ["words", "pictures"])
def test_500_hostile_requests_end_no_server(kind: str, request_server: dict[str, Served]) -> None:
    server = request_server[kind]
    draw = random.Random(kind)
    for _ in range(60):  # what it takes once: buffers, caches
        request(server, draw)
    before = memory(server)
    with ThreadPoolExecutor(4) as pool:
        seeds = [draw.random() for _ in range(380)]
        statuses = Counter(pool.map(lambda seed: request(server, random.Random(seed)), seeds))
        list(pool.map(lambda seed: cut(server, random.Random(seed)), [draw.random() for _ in range(120)]))
    grown = memory(server) - before
    print(f"{kind}: {dict(sorted(statuses.items()))}, memory {before:.0f} MiB {grown:+.0f}")
    assert not [status for status in statuses if status >= 500 and status != 503]
    assert grown < 40
    assert server.process.poll() is None
    assert server.get("/health/live")["live"]
    assert not [row for row in server.rows if row["event"] == "error"]


def test_who_sends_slowly_is_cut_off(words: Served) -> None:
    def slow(sent: bytes) -> float:
        with socket.create_connection(place(words), timeout=60) as connection:
            began = time.monotonic()
            try:
                for byte in sent:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.2)
                while connection.recv(4096):
                    pass
            except OSError:
                pass
            return time.monotonic() - began

    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
        + TOKEN.encode()
        + b"\r\nContent-Length: 9\r\n\r\n"
    )
    with ThreadPoolExecutor(3) as pool:
        took = list(pool.map(slow, [b"", head, b"GET /metrics HTTP/1.1\r\nX-Long: " + b"y" * 400]))
    assert all(2 < seconds < 40 for seconds in took), took
    with socket.create_connection(place(words), timeout=60) as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_a_port_in_use_and_what_does_not_fit_are_said_before_anything_is_loaded(words: Served, models: Path) -> None:
    import subprocess
    import sys

    from tests.support.served import ROOT

    def refused(*options: str) -> str:
        argv = [sys.executable, "-P", "-m", "stackrt.serve", str(models / "words"), *options]
        env = {"PYTHONPATH": str(ROOT / "images"), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60, check=False)
        assert done.returncode == 78
        return done.stderr

    host, port = place(words)
    assert "Address already in use; choose another port" in refused("--host", host, "--port", str(port))
    said = refused("--memory", "0.5", "--port", "0")
    assert "this model needs 0.59 GiB of memory, and there are 0.50 GiB" in said
    assert until(lambda: words.get("/health/ready")["ready"], 30) >= 0


@pytest.mark.needs("compiler", "linux")
def test_a_model_that_does_not_fit_the_gpu_is_told_before_it_is_loaded(models: Path, tmp_path: Path) -> None:
    """The driver is a stand-in, and PyTorch's version says that it is one for GPUs."""
    import os
    import subprocess
    import sys

    from tests.fakes.driver import FakeDriver, FakeGpu
    from tests.support.served import ROOT

    uuids = [f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "ab"]
    env = FakeDriver(gpus=[FakeGpu(uuids[0]), FakeGpu(uuids[1], free=512 << 20)]).write(tmp_path)
    (tmp_path / "torch-2.13.0.dist-info").mkdir()
    (tmp_path / "torch-2.13.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.13.0+cu130\n")

    def refused(device: str, seen: str, *more_words: str) -> str:
        more = {"PYTHONPATH": f"{ROOT / 'images'}{os.pathsep}{tmp_path}", "CUDA_VISIBLE_DEVICES": seen}
        argv = [sys.executable, "-P", "-m", "stackrt.serve", str(models / "words"), "--port", "0", "--device", device]
        argv += more_words
        done = subprocess.run(argv, capture_output=True, text=True, env=env | more, timeout=60, check=False)
        return done.stderr

    assert "needs 0.68 GiB of the GPU's memory, and there are 0.50 GiB" in refused("auto", "1")
    assert "of the GPU's memory" in refused("cuda", uuids[1][:12])
    assert "this model needs 0.68 GiB of memory of GPU 1, and there are 0.50 GiB" in refused(
        "auto", "0,1", "--workers", "2"
    )


@pytest.mark.needs("compiler", "linux")
def test_workers_take_the_gpus_in_turn(tmp_path: Path) -> None:
    """The driver is a stand-in."""
    import subprocess
    import sys

    from tests.fakes.driver import FakeDriver, FakeGpu
    from tests.support.served import ROOT

    uuids = [f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "abc"]
    env = FakeDriver(gpus=[FakeGpu(uuid) for uuid in uuids]).write(tmp_path) | {"PYTHONPATH": str(ROOT / "images")}
    script = """if True:
        import os, sys
        from pathlib import Path
        from stackrt.serve import worker
        from stackrt.serve.options import Options
        worker._take_gpu(Options(Path("m"), workers=3, device=sys.argv[1]), int(sys.argv[2]))
        print(os.environ.get("CUDA_VISIBLE_DEVICES"))
    """

    def seen(device: str, seat: int, visible: str | None = None) -> str:
        given = env if visible is None else env | {"CUDA_VISIBLE_DEVICES": visible}
        argv = [sys.executable, "-P", "-c", script, device, str(seat)]
        return subprocess.run(argv, capture_output=True, text=True, env=given, check=True).stdout.strip()

    assert [seen("auto", seat) for seat in range(4)] == [*uuids, uuids[0]]
    assert [seen("cuda", seat, "2,0") for seat in range(3)] == [uuids[2], uuids[0], uuids[2]]
    assert seen("auto", 1, "1") == "1", "one GPU is nothing to choose from"
    assert seen("cpu", 1) == "None"
