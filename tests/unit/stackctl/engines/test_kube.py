from __future__ import annotations

import pytest
import urllib3

from stackctl.engines import kube_headers


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
