"""A service on the cluster: it answers, changes without a failed request, outlives a wrong change, and goes."""

from __future__ import annotations

import http.client
import json
import random
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter
from tests.support.served import language_model
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker")

TOKEN = "let-me-in"
REQUESTS = 2000
BODY = json.dumps({"model": "words", "prompt": "To be", "max_tokens": 4, "temperature": 0})


class Clients:
    """Requests to the servers that are ready, one after the other on each thread, as a Service deals them out.

    The tests' cluster has no kube-proxy: its part, to follow which servers are ready, is played here.
    """

    def __init__(self, submitter: Submitter, threads: int = 4) -> None:
        self._submitter, self._ready, self._ended = submitter, list[str](), threading.Event()
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self._follow()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]
        self._threads.append(threading.Thread(target=self._go_on))
        for thread in self._threads:
            thread.start()

    def _follow(self) -> None:
        chosen = ["get", "endpointslices", "--selector=kubernetes.io/service-name=words", "--output=json"]
        slices = json.loads(self._submitter.kubectl(*chosen))["items"]
        rows = [row for one in slices for row in one.get("endpoints") or ()]
        self._ready = [row["addresses"][0] for row in rows if row["conditions"].get("ready")]

    def _go_on(self) -> None:
        while not self._ended.wait(0.2):
            self._follow()

    def _ask(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            connection = http.client.HTTPConnection(random.choice(self._ready), 8000, timeout=60)
            try:
                headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
                connection.request("POST", "/v1/completions", BODY, headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200 or b"choices" not in text:
                    self.failed.append(f"{answer.status} {text[:200]!r}")
            except OSError as error:
                self.failed.append(repr(error))
            finally:
                connection.close()
            self.seconds.append(time.monotonic() - began)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.timeout(1200)
def test_a_service_answers_and_is_changed_without_a_failed_request(
    submitter: Submitter, own_cluster: OwnCluster, shared_claim: Path, built: Callable[[str], str], tmp_path: Path
) -> None:
    image = built("serve")
    own_cluster.load_image(image)
    for name in ("first", "second"):
        language_model(shared_claim / name)
    for path in [shared_claim, *shared_claim.rglob("*")]:
        path.chmod(0o755)
    (tmp_path / "token").write_text(TOKEN)

    def serve(model: str, *more: str) -> None:
        words = (
            f"--on kubernetes --name words --model-name words --volume shared --image {image} --replicas 2 --cpu 100m"
        )
        words += f" --memory 1500Mi --token-file {tmp_path / 'token'}"
        done = submitter.stackctl("serve", model, *words.split(), *more, timeout=400)
        assert done.returncode == 0, done.stderr

    serve("first", "--wait")
    assert "words" in submitter.stackctl("list").stdout
    status = json.loads(submitter.stackctl("status", "words", "--json").stdout)
    assert (status["state"], status["ready"], status["model"]) == ("running", 2, "words: shared:/model/first")

    with submitter.background("forward", "words", "0:8000") as forwarding:
        assert forwarding.stderr is not None
        address = next(line for line in forwarding.stderr if line.startswith("127.0.0.1:")).split()[0]
        api = openai.OpenAI(base_url=f"http://{address}/v1", api_key=TOKEN, max_retries=0)
        asked: dict[str, Any] = {"model": "words", "prompt": "To be", "max_tokens": 12, "temperature": 0}
        whole = api.completions.create(**asked).choices[0].text
        assert "".join(piece.choices[0].text for piece in api.completions.create(**asked, stream=True)) == whole
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"http://{address}/v1", api_key="wrong", max_retries=0).models.list()
        forwarding.terminate()

    clients, began = Clients(submitter), time.monotonic()
    try:
        serve("second", "--wait")
        until(lambda: len(clients.seconds) >= REQUESTS, 300)
    finally:
        clients.end()
    took, ordered = time.monotonic() - began, sorted(clients.seconds)
    print(
        f"{len(ordered)} requests during a rolling change: {len(clients.failed)} failed, "
        f"p50 {statistics.median(ordered) * 1000:.0f} ms, p99 {ordered[int(len(ordered) * 0.99)] * 1000:.0f} ms, "
        f"{len(ordered) / took:.0f} a second"
    )
    assert not clients.failed, clients.failed[:5]
    assert '"/model/second"' in submitter.kubectl("get", "deployment", "words", "--output=json")

    serve("nowhere")
    wrong = "/model/nowhere: there is no such file or folder"
    until(lambda: wrong in submitter.stackctl("explain", "words").stdout, 120)
    assert json.loads(submitter.stackctl("status", "words", "--json").stdout)["ready"] == 2
    assert b"request" in submitter.stackctl("logs", "words").stdout.encode()

    assert submitter.stackctl("cancel", "words").stdout == "words: cancelled\n"
    until(
        lambda: not submitter.kubectl("get", "pods,services,pdb,secrets,networkpolicies", "--output=name").strip(), 120
    )
