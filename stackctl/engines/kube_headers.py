"""What stands in the headers of requests to an API server, and what it says in those of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from urllib3 import HTTPHeaderDict

from stackctl import __version__
from stackctl.errors import MissingHere

_QUOTED = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')
"""A warning of a header."""


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait before the next try; 0 if it does not say."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def warnings(headers: HTTPHeaderDict) -> list[str]:
    """The texts of `Warning: 299 - "text"` headers, of which proxies may make one; a quote within is escaped."""
    texts = (text for row in headers.getlist("Warning") for text in _QUOTED.findall(row))
    return [re.sub(r"\\(.)", r"\1", text) for text in texts]


def of_request(
    accept: str, extra: Mapping[str, str], acting: Iterable[tuple[str, str]], token: str | None
) -> HTTPHeaderDict:
    """The headers of a request.

    Args:
        accept: What answer is wanted.
        extra: More of them.
        acting: Who to act as, as `kubeconfig.acting_as` has it.
        token: What goes into `Authorization`.

    Raises:
        MissingHere: No header can hold the token. It is not repeated, as urllib3 would.
    """
    headers = HTTPHeaderDict({"User-Agent": f"stackctl/{__version__}", "Accept": accept, **extra})
    for name, value in acting:
        headers.add(name, value)
    token = (token or "").strip()
    if not (token.isascii() and token.isprintable()):
        raise MissingHere(
            "the kubeconfig's token is none: it holds line ends, or what is not ASCII", hint="log in again"
        )
    if token:
        headers["Authorization"] = token
    return headers
