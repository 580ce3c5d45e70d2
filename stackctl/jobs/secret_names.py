"""What by its name may be a secret: files that are shipped, and variables whose values anybody can read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

FILES = (
    ".env",
    ".env.*",
    "*.env",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.kdbx",
    "*.tfstate",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".netrc",
    ".pgpass",
    ".pypirc",
    ".npmrc",
    ".htpasswd",
    ".dockercfg",
    ".git-credentials",
    ".vault-token",
    "credentials",
    "credentials.json",
    "client_secret*.json",
    "service[-_]account*.json",
    "secrets.*",
    "kubeconfig",
    "*.kubeconfig",
)
"""Patterns of the last part of a path."""

PATHS = (".aws/config", ".docker/config.json", ".kube/config")
"""Of its last two parts."""

_EXAMPLES = (".pub", ".example", ".sample", ".template", ".dist", ".py")
"""Ends of names that only look so: public keys, files to copy, and modules."""

_VARIABLES = re.compile(r"(?:^|_)(?:(?:API|ACCESS|SECRET|PRIVATE)_?KEY|KEY|TOKEN|SECRET|PASSW(?:OR)?D|CREDENTIALS?)$")


def files(paths: Iterable[str]) -> list[str]:
    """Those of some files that may be secrets."""
    return [path for path in paths if _is_file(PurePosixPath(path.lower()))]


def variables(names: Iterable[str]) -> list[str]:
    """Those of some environment variables whose values may be secrets."""
    return [name for name in names if _VARIABLES.search(name.upper())]


def _is_file(path: PurePosixPath) -> bool:
    if path.name.endswith(_EXAMPLES):
        return False
    return "/".join(path.parts[-2:]) in PATHS or any(fnmatchcase(path.name, pattern) for pattern in FILES)
