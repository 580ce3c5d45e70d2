from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import urllib3

from stackctl.engines import kube, kube_headers


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        (['299 - "unknown field"'], ["unknown field"]),
        ([r'299 - "would violate \"restricted\": a\\b"'], [r'would violate "restricted": a\b']),
        (['299 - "one", 299 - "two, with a comma"'], ["one", "two, with a comma"]),
        (['299 - "one"', '299 kube-apiserver "two" "Sun, 22 Nov 2026 03:00:00 GMT"'], ["one", "two"]),
        (["nothing quoted"], []),
    ],
)
def test_a_warning_is_read_whole(rows: list[str], texts: list[str]) -> None:
    headers = urllib3.HTTPHeaderDict()
    for row in rows:
        headers.add("Warning", row)
    assert kube_headers.warnings(headers) == texts


def test_a_group_that_is_installed_meanwhile_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that are there are asked for once in a submission."""
    answers = [_groups(), _groups(queues="queues/v1beta1", jobs="jobs/v1"), _groups(queues="queues/v1")]
    monkeypatch.setattr(kube, "login", lambda context: SimpleNamespace(host=context))
    monkeypatch.setattr(kube.Cluster, "read", lambda *_: answers.pop(0))
    cluster = kube.Cluster()
    assert [cluster.served("queues") for _ in range(3)] == ["", "queues/v1beta1", "queues/v1beta1"]
    assert cluster.served("jobs") == "jobs/v1"
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    assert cluster.served("queues") == "queues/v1"


def _groups(**versions: str) -> object:
    rows = [
        SimpleNamespace(name=name, preferred_version=SimpleNamespace(group_version=version))
        for name, version in versions.items()
    ]
    return SimpleNamespace(groups=rows)
