from __future__ import annotations

from typing import Any

import pytest

from stackrt.serve.asked import Fields, RequestError, read, text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "Infinity is no JSON number"),
        (b"\xff{}", "not UTF-8"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "no JSON"),
    ],
)
def test_what_is_no_request_gets_a_sentence(body: bytes, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read(body)


@pytest.mark.parametrize("value", ["1", True, [1], {}, 10**400, 3, -1])
def test_a_number_is_one_and_within_its_bounds(value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        Fields({"temperature": value}).number("temperature", 1.0, 0.0, 2.0)
    assert (caught.value.param, caught.value.status) == ("temperature", 400)


def test_what_would_be_ignored_is_refused() -> None:
    fields = Fields({"prompt": "a", "logit_bias": {"1": 2}, "new": 1})
    with pytest.raises(RequestError, match="logit_bias is not supported"):
        fields.only(frozenset({"prompt", "new"}), {"logit_bias": {}})
    with pytest.raises(RequestError, match="'new' is no key"):
        fields.only(frozenset({"prompt", "logit_bias"}), {})
    with pytest.raises(RequestError, match="logprobs is not supported"):
        Fields({"logprobs": 0}).only(frozenset(), {"logprobs": False})
    Fields({"logit_bias": {}, "echo": False}).only(frozenset(), {"logit_bias": {}, "echo": False})


def test_half_a_character_is_no_text() -> None:
    with pytest.raises(RequestError, match="half of a character"):
        text("a\ud800", "prompt")
    assert Fields({"stop": "a"}).words("stop", 4, 10) == ["a"]
    with pytest.raises(RequestError, match="stop takes 4"):
        Fields({"stop": ["a"] * 5}).words("stop", 4, 10)
