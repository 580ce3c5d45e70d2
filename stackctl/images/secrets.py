"""Search texts for what looks like a secret. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from stackrt.checks.secret_patterns import PATTERNS


def search(texts: Mapping[str, Iterable[str]]) -> list[str]:
    """Where a text holds what looks like a secret: `history: private key`; the secret itself is not repeated."""
    return sorted(
        f"{place}: {kind}"
        for place, lines in texts.items()
        for kind, pattern in PATTERNS.items()
        if any(re.search(pattern, line) for line in lines)
    )
