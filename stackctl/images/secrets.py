"""What looks like a secret, as data. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

PATTERNS = {
    "private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----",
    "password in an address": r"://[^\s/:@'\"<>{}$]+:[^\s/:@'\"<>{}$]+@[A-Za-z0-9]",
    "AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60})",
    "GitLab token": r"\bglpat-[A-Za-z0-9_-]{20}",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{34}\b",
    "NGC key": r"\bnvapi-[A-Za-z0-9_-]{40}",
    "PyPI token": r"\bpypi-AgE[A-Za-z0-9_-]{50}",
    "Slack token": r"\bxox[abprs]-[0-9]+-[A-Za-z0-9-]{10}",
    "Google key": r"\bAIza[0-9A-Za-z_-]{35}",
    "registry password": r"\"auth\"\s*:\s*\"[A-Za-z0-9+/]{16,}={0,2}\"",
    "netrc password": r"\bmachine\s+\S+\s+login\s+\S+\s+password\s+\S+",
}
"""Kind -> regular expression. The same ones search an image's files, its history and its settings."""


def search(texts: Mapping[str, Iterable[str]]) -> list[str]:
    """Where a text holds what looks like a secret: `history: private key`; the secret itself is not repeated."""
    return sorted(
        f"{place}: {kind}"
        for place, lines in texts.items()
        for kind, pattern in PATTERNS.items()
        if any(re.search(pattern, line) for line in lines)
    )
