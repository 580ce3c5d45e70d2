from __future__ import annotations

import pytest

from stackctl.images import secrets
from stackrt.checks.secret_patterns import PATTERNS

PLANTED = {
    "private key": "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    "password in an address": "index-url = https://me:" + "hunter2@mirror.example/simple",
    "password": "password = " + "hunter2hunter2",
    "AWS key": "aws_access_key_id=AKIA" + "A1B2" * 4,
    "GitHub token": "ghp_" + "a1B2" * 9,
    "GitLab token": "glpat-" + "a1B2-" * 4,
    "Hugging Face token": "export HF_TOKEN=hf_" + "aB" * 17,
    "NGC key": "nvapi-" + "aB1_" * 10,
    "PyPI token": "TWINE_PASSWORD=pypi-AgE" + "a1B2_" * 10,
    "Slack token": "xoxb-1234-" + "abcdefghij",
    "Google key": "AIza" + "a1B2-" * 7,
    "registry password": '{"auths": {"registry.example": {"auth": "' + 'bWU6aHVudGVyMg1234=="}}}',
    "netrc password": "machine mirror.example login me password " + "hunter2",
}


def test_every_kind_is_planted() -> None:
    assert PLANTED.keys() == PATTERNS.keys()


@pytest.mark.parametrize("kind", sorted(PLANTED))
def test_a_planted_secret_is_found_and_not_repeated(kind: str) -> None:
    assert secrets.search({"the history": ["RUN true", f"RUN cat <<END\n{PLANTED[kind]}\nEND"]}) == [
        f"the history: {kind}"
    ]


@pytest.mark.parametrize(
    "text",
    ["https://mirror.example/simple", "http://proxy.example:3128/", "ENV A=git@github.com:team/repo",
     "sha256:" + "a1" * 32, "https://${USER}:${PASSWORD}@mirror.example", "-----BEGIN PUBLIC KEY-----",
     "password = ${PASSWORD}", "password\nis what it asks for"],
)  # fmt: skip
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert secrets.search({"the history": [text]}) == []
