"""Clients that go on asking a server while something is done to it: which requests failed, and how long each took."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

Place = Callable[[], tuple[str, int]]


def post(place: tuple[str, int], path: str, row: Any, token: str = "") -> tuple[int, Any]:
    """The status and the answer of one request, on a connection of its own."""
    connection = http.client.HTTPConnection(*place, timeout=240)
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request("POST", path, json.dumps(row), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


class Clients:
    """Within the block, requests one after the other on each thread, each on a connection of its own.

    Args:
        place: Where the next one goes.
        path: What is asked.
        row: With what.
        good: A key that a good answer has.
    """

    def __init__(self, place: Place, path: str, row: Any, good: str, *, token: str = "", threads: int = 4) -> None:
        self._place, self._path, self._row, self._good, self._token = place, path, row, good, token
        self._ended = threading.Event()
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._took = time.monotonic() - self._began

    def _ask(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                status, answer = post(self._place(), self._path, self._row, self._token)
                if status != 200 or self._good not in answer:
                    self.failed.append(f"{status} {str(answer)[:200]}")
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append(repr(error))
            self.seconds.append(time.monotonic() - began)

    @property
    def told(self) -> str:
        """What became of them, after the block."""
        ordered = sorted(self.seconds)
        return (
            f"{len(ordered)} requests, {len(self.failed)} failed, p50 {statistics.median(ordered) * 1000:.0f} ms, "
            f"p99 {ordered[int(len(ordered) * 0.99)] * 1000:.0f} ms, {len(ordered) / self._took:.0f} a second"
        )


def flood(place: Place, path: str, row: Any, *, token: str = "", clients: int = 48) -> Counter[int]:
    """How often each status came as an answer to so many requests at once."""
    with ThreadPoolExecutor(clients) as pool:
        return Counter(status for status, _ in pool.map(lambda _: post(place(), path, row, token), range(clients)))
