"""What an API server says in the headers of an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from urllib3 import HTTPHeaderDict

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
