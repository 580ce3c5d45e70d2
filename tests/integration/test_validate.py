"""Every check of `stackctl validate` against a planted fault: in a copy of the checkout, and in an image."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import PREFIX, Stackctl
from tests.integration.conftest import Copy

pytestmark = pytest.mark.needs("docker")

BAD = f"{PREFIX}bad-"
FAULTY = """\
FROM {image}
USER root
RUN find /opt/venv -path '*tqdm-*.dist-info*' -delete \\
 && printf -- '-----BEGIN %s KEY-----' PRIVATE >/opt/key \\
 && printf -- '-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n' >>/etc/ssl/certs/ca-certificates.crt
ENV PIP_INDEX_URL=https://me:{password}@mirror.example/simple
LABEL io.stackctl.lock=0123456789
"""


def outcomes(run: Copy, *words: str, **more: object) -> dict[str, str]:
    """`check subject` -> state, place and message."""
    done = run("validate", *words, "--json", **more)
    rows = json.loads(done.stdout)
    assert (done.returncode == 1) == any(row["state"] == "FAIL" for row in rows), done.stderr
    return {
        f"{row['check']} {row['subject']}".strip(): f"{row['state']} {row['where']} {row['message']}" for row in rows
    }


@pytest.fixture
def faulty(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The pytorch CPU image with a fault of every kind; the prefix of its name."""
    tag = image.replace(PREFIX, BAD)
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "Dockerfile").write_text(FAULTY.format(image=image, password="hunter2"))
    # Not from standard input: buildx would leave a copy of it in /tmp.
    subprocess.run(["docker", "build", "--quiet", "--tag", tag, str(folder)], check=True, capture_output=True)
    yield BAD
    subprocess.run(["docker", "image", "rm", "--force", tag], check=True, capture_output=True)


def test_the_checkout_and_an_image_of_it_have_no_fault(image: str, stackctl: Stackctl) -> None:
    found = outcomes(stackctl)
    assert {text for text in found.values() if text.startswith("FAIL")} == set()
    assert found[f"packages {image}"].startswith("ok")
    assert found[f"secrets {image}"].startswith("ok")
    assert {name.split()[0] for name in found} >= {
        "generated",
        "hadolint",
        "locks",
        "compose",
        "kubernetes",
        "size",
        "user",
    }


def test_files_alone_need_no_engine(stackctl: Stackctl) -> None:
    found = outcomes(stackctl, "--files", env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    assert {name.split()[0] for name in found} == {"generated", "hadolint", "locks", "compose", "kubernetes"}
    assert {text.split()[0] for text in found.values()} == {"ok"}


def test_an_image_of_ones_own_without_a_lock_is_no_fault_of_another(copy: tuple[Path, Copy]) -> None:
    root, stackctl = copy
    row = '\n[images.mine]\nsummary = "x"\nframework = "torch"\nbase = "bookworm"\n\n[images.mine.variants.cpu]\n'
    with (root / "images" / "catalog.toml").open("a") as catalog:
        catalog.write(f'{row}framework_packages = ["torch==2.13.0+cpu"]\nbudget_gb = 2.0\n')
    assert {text.split()[0] for text in outcomes(stackctl, "pytorch", "--files").values()} == {"ok"}
    assert "mine (cpu) has no lock" in outcomes(stackctl, "mine", "--files")["generated"]


def test_a_fault_in_an_image_is_found_by_its_check(faulty: str, stackctl: Stackctl) -> None:
    found = outcomes(stackctl, "pytorch", "--variant", "cpu", env={"STACK_IMAGE_PREFIX": faulty})
    tag = f"{faulty}pytorch:cpu"
    assert "the label io.stackctl.lock is 0123456789" in found[f"labels {tag}"]
    assert "its containers run as root" in found[f"user {tag}"]
    assert "tqdm is absent in the image" in found[f"packages {tag}"]
    assert "/etc/ssl/certs/ca-certificates.crt: certificate (and " in found[f"secrets {tag}"]
    done = stackctl("validate", "pytorch", "--variant", "cpu", env={"STACK_IMAGE_PREFIX": faulty})
    assert done.returncode == 1
    assert "hunter2" not in done.stdout + done.stderr
    assert " 4 failed" in done.stderr


def test_a_secret_in_a_file_and_in_the_environment_are_both_found(faulty: str) -> None:
    from stackctl.engines import docker
    from stackctl.images import inventory, secrets
    from stackctl.validate import built

    tag = f"{faulty}pytorch:cpu"
    info = docker.image(tag)
    assert info is not None
    found = {finding.path: finding.what for finding in inventory.secrets(tag)}
    assert found == {"/opt/key": "private key", "/etc/ssl/certs/ca-certificates.crt": "certificate"}
    places = secrets.search(built.settings_of(tag, info))
    assert set(places) == {"the environment: password in an address", "the history: password in an address"}


@pytest.mark.parametrize(
    ("path", "old", "new", "check", "said"),
    [
        ("images/dockerfiles/pytorch-cpu.Dockerfile", "WORKDIR /workspace", "WORKDIR here", "generated",
         "images/dockerfiles/pytorch-cpu.Dockerfile is not what `stackctl render` writes"),
        ("images/dockerfiles/pytorch-cpu.Dockerfile", "WORKDIR /workspace", "WORKDIR here", "hadolint", "DL3000"),
        ("images/locks/pytorch-cpu.txt", "tqdm==", "tqdm==9", "locks pytorch (cpu)", "the resolver wrote tqdm=="),
        ("images/catalog.toml", "budget_gb = 1.", "budget_gb = 0.", "size {image}", "larger than its budget"),
        ("compose.yaml", "services:", "servics:", "compose compose.yaml", "servics"),
        ("k8s/base/namespace.yaml", "kind: Namespace", "kind: Namespace\nspecs: 1",
         "kubernetes k8s/base/namespace.yaml", "Namespace: Additional properties are not allowed"),
    ],
)  # fmt: skip
def test_a_fault_in_the_checkout_is_found_by_its_check(
    copy: tuple[Path, Copy], image: str, path: str, old: str, new: str, check: str, said: str
) -> None:
    root, stackctl = copy
    text = (root / path).read_text()
    assert old in text
    (root / path).write_text(text.replace(old, new, 1))
    if path.startswith("images"):
        found = outcomes(stackctl, "pytorch", "--variant", "cpu")
    else:
        found = outcomes(stackctl, env={"STACK_IMAGE_PREFIX": "absent-"})
    outcome = next(text for name, text in found.items() if name.startswith(check.format(image=image)))
    assert outcome.startswith("FAIL")
    assert said in outcome
