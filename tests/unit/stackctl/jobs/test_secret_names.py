from __future__ import annotations

import pytest

from stackctl.jobs import secret_names


@pytest.mark.parametrize(
    "path",
    [
        ".env", "conf/.env.production", "prod.env", "tls/server.pem", "tls/Server.KEY", "id_rsa", ".ssh/id_ed25519",
        ".netrc", ".npmrc", ".git-credentials", ".aws/credentials", ".aws/config", "home/.docker/config.json",
        ".kube/config", "lab.kubeconfig", "gcp/service-account-1.json", "client_secret_2.json", "secrets.toml",
        "infra/terraform.tfstate",
    ],
)  # fmt: skip
def test_what_may_be_a_secret(path: str) -> None:
    assert secret_names.files([path]) == [path]


@pytest.mark.parametrize(
    "path",
    [
        "train.py", "env.py", ".env.example", "conf/.env.template", "id_rsa.pub", "secrets.py", "keys/readme.md",
        "config.json", "config", "tokenizer.json", "credentials.md",
    ],
)  # fmt: skip
def test_what_is_none(path: str) -> None:
    assert secret_names.files([path]) == []


def test_variables_whose_values_nobody_should_see() -> None:
    names = ["WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "token", "NCCL_DEBUG", "KEYBOARD",
             "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "SEED"]  # fmt: skip
    assert secret_names.variables(names) == names[:5]
