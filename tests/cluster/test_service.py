"""A service on the cluster: it answers, changes without a failed request, outlives a wrong change, and goes."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import openai
import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter
from tests.support.load import Clients, flood, post
from tests.support.served import has_learned, language_model, picture_model, recognized, trained_model
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker")

TOKEN = "let-me-in"
REQUESTS = 2000
ASKED = {"model": "words", "prompt": "To be", "max_tokens": 4, "temperature": 0}


class Ready:
    """Within the block, one of the servers that are ready, as a Service deals requests out.

    The tests' cluster has no kube-proxy: its part, to follow which servers are ready, is played here.
    """

    def __init__(self, submitter: Submitter) -> None:
        self._submitter, self._ready, self._ended = submitter, list[str](), threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> Self:
        self._follow()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def __call__(self) -> tuple[str, int]:
        """Address and port."""
        return random.choice(self._ready), 8000

    def _follow(self) -> None:
        chosen = ["get", "endpointslices", "--selector=kubernetes.io/service-name=words", "--output=json"]
        slices = json.loads(self._submitter.kubectl(*chosen))["items"]
        rows = [row for one in slices for row in one.get("endpoints") or ()]
        self._ready = [row["addresses"][0] for row in rows if row["conditions"].get("ready")]

    def _go_on(self) -> None:
        while not self._ended.wait(0.2):
            self._follow()


@pytest.mark.timeout(1200)
def test_a_service_answers_and_is_changed_without_a_failed_request(
    submitter: Submitter, own_cluster: OwnCluster, shared_claim: Path, built: Callable[[str], str], tmp_path: Path
) -> None:
    image = built("serve")
    own_cluster.load_image(image)
    language_model(shared_claim / "first")
    trained_model(shared_claim / "second")
    picture_model(shared_claim / "digits.keras")
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

    asks = "/v1/completions"
    with Ready(submitter) as place:
        with Clients(place, asks, ASKED, "choices", token=TOKEN) as clients:
            serve("second", "--wait", "--", "--max-batch", "2", "--queue", "4")
            until(lambda: len(clients.seconds) >= REQUESTS, 300)
        print(f"a rolling change: {clients.told}")
        assert not clients.failed, clients.failed[:5]
        address = "http://{}:{}/v1".format(*place())
        assert has_learned(openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=0), "words")
        statuses = flood(place, asks, {**ASKED, "max_tokens": 24}, token=TOKEN, clients=64)
        print(f"too many at once: {dict(statuses)}")
        assert {429} <= set(statuses) <= {200, 429, 503}
        assert post(place(), asks, ASKED, TOKEN)[0] == 200
    assert '"/model/second"' in submitter.kubectl("get", "deployment", "words", "--output=json")

    serve("digits.keras", "--autoscale", "3", "--wait")
    with Ready(submitter) as place:
        assert recognized(lambda row: post(place(), "/v1/models/words:predict", row, TOKEN)) > 0.7
    scaler = json.loads(submitter.kubectl("get", "hpa", "words", "--output=json"))["spec"]
    assert (scaler["scaleTargetRef"]["kind"], scaler["scaleTargetRef"]["name"]) == ("Deployment", "words")
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 3)
    # Nothing measures pods here: the controller says so, and of which API.
    until(lambda: "it needs the cluster's metrics API" in submitter.stackctl("explain", "words").stdout, 180)

    serve("nowhere")
    wrong = "/model/nowhere: there is no such file or folder"
    until(lambda: wrong in submitter.stackctl("explain", "words").stdout, 120)
    assert json.loads(submitter.stackctl("status", "words", "--json").stdout)["ready"] == 2
    assert b"request" in submitter.stackctl("logs", "words").stdout.encode()

    assert submitter.stackctl("cancel", "words").stdout == "words: cancelled\n"
    kinds = "pods,services,hpa,pdb,secrets,networkpolicies"
    until(lambda: not submitter.kubectl("get", kinds, "--output=name").strip(), 120)
