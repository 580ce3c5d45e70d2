"""What looks like a secret, as data: for an image's files, and for its history and settings (`stackctl validate`)."""

PATTERNS = {
    "private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----",
    "password in an address": r"://[^\s/:@'\"<>{}$]+:[^\s/:@'\"<>{}$]+@[\w.-]",
    "password": r"(?m)^[ \t]*password[ \t]*=?[ \t]*[^\s=${<]{6,}[ \t]*$",
    "AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60})",
    "GitLab token": r"\bglpat-[A-Za-z0-9_-]{20}",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{34}",
    "NGC key": r"\bnvapi-[A-Za-z0-9_-]{40}",
    "PyPI token": r"\bpypi-AgE[A-Za-z0-9_-]{50}",
    "Slack token": r"\bxox[abprs]-[0-9A-Za-z-]{15}",
    "Google key": r"\bAIza[0-9A-Za-z_-]{35}",
    "registry password": r"\"auth\"\s*:\s*\"[A-Za-z0-9+/]{6,}={0,2}\"",
    "netrc password": r"\bmachine\s+\S+(?:\s+(?:login|account)\s+\S+)*\s+password\s+\S+",
}
"""Kind -> regular expression, which holds for text and, encoded, for bytes."""
