from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.served import Served

PICTURE = [[[(row * 8 + column) / 64] for column in range(8)] for row in range(8)]


def post(server: Served, path: str, row: Any) -> tuple[int, Any]:
    body = row if isinstance(row, bytes) else json.dumps(row).encode()
    request = urllib.request.Request(server.address + path, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def tensor(**more: Any) -> dict[str, Any]:
    flat = [value for row in PICTURE for (value,) in row]
    return {"inputs": [{"name": "picture", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": flat, **more}]}


def test_both_protocols_give_the_same_predictions(pictures: Served) -> None:
    status, by_row = post(pictures, "/v1/models/pictures:predict", {"instances": [PICTURE, PICTURE]})
    assert status == 200
    assert len(by_row["predictions"]) == 2
    assert sum(by_row["predictions"][0]) == pytest.approx(1, abs=1e-5)
    _, by_column = post(pictures, "/v1/models/pictures/versions/1:predict", {"inputs": {"picture": [PICTURE]}})
    assert by_column["outputs"][0] == pytest.approx(by_row["predictions"][0], abs=1e-6)
    status, v2 = post(pictures, "/v2/models/pictures/infer", {"id": "7", **tensor()})
    assert (status, v2["id"], v2["outputs"][0]["shape"]) == (200, "7", [1, 10])
    assert v2["outputs"][0]["data"] == pytest.approx(by_row["predictions"][0], abs=1e-6)


def test_it_says_what_it_serves(pictures: Served) -> None:
    (version,) = pictures.get("/v1/models/pictures")["model_version_status"]
    assert (version["version"], version["state"]) == ("1", "AVAILABLE")
    signature = pictures.get("/v1/models/pictures/metadata")["metadata"]["signature_def"]["signature_def"]
    assert [side["size"] for side in signature["serving_default"]["inputs"]["picture"]["tensor_shape"]["dim"]] == [
        "-1", "8", "8", "1"]  # fmt: skip
    model = pictures.get("/v2/models/pictures")
    assert model["inputs"] == [{"name": "picture", "datatype": "FP32", "shape": [-1, 8, 8, 1]}]
    for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/pictures/ready"):
        assert pictures.get(path)


@pytest.mark.parametrize(
    ("path", "row", "status", "said"),
    [
        ("/v1/models/other:predict", {"instances": [PICTURE]}, 404, "no model 'other' here"),
        ("/v1/models/pictures/versions/2:predict", {"instances": [PICTURE]}, 404, "version 1 alone"),
        ("/v1/models/pictures:classify", {"instances": [PICTURE]}, 404, ":predict alone"),
        ("/v1/models/pictures:predict", b"{", 400, "no JSON"),
        ("/v1/models/pictures:predict", b'{"instances": [[NaN]]}', 400, "NaN is no JSON number"),
        ("/v1/models/pictures:predict", {"instances": []}, 400, "not empty"),
        ("/v1/models/pictures:predict", {"instances": [PICTURE[:7]]}, 400, "[1, 7, 8, 1], and the model takes"),
        ("/v1/models/pictures:predict", {"instances": [PICTURE, [1]]}, 400, "one length on each level"),
        ("/v1/models/pictures:predict", {"instances": [["a"]]}, 400, "numbers alone"),
        ("/v1/models/pictures:predict", {"inputs": [[[[1e300]] * 8] * 8]}, 400, "too large for float32"),
        ("/v1/models/pictures:predict", {"instances": [PICTURE] * 300}, 413, "300 rows; 256 at most"),
        ("/v2/models/pictures/infer", tensor(name="other"), 400, "the model's input is 'picture'"),
        ("/v2/models/pictures/infer", tensor(shape=[1, 8, 9, 1]), 400, "has 64 numbers, and shape"),
        ("/v2/models/pictures/infer", tensor(datatype="BYTES"), 400, "datatype must be one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_told(pictures: Served, path: str, row: Any, status: int, said: str) -> None:
    found, answer = post(pictures, path, row)
    assert (found, said in answer["error"]) == (status, True), answer


def test_requests_at_once_share_batches(pictures: Served) -> None:
    rows = [{"instances": [[[[index / 40]] * 8] * 8]} for index in range(40)]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda row: post(pictures, "/v1/models/pictures:predict", row), rows))
    for row, (status, answer) in zip(rows, together, strict=True):
        assert status == 200
        alone = post(pictures, "/v1/models/pictures:predict", row)[1]
        assert answer["predictions"][0] == pytest.approx(alone["predictions"][0], abs=1e-5)
