from __future__ import annotations

import time

from stackrt.checks.context import Context
from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy, healthy_in

KEY = "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\n"


@fault("non-root", "the container runs as root", needs=("docker",))
def as_root(bench: Bench) -> Result:
    return bench.sick()["non-root"]


@fault("non-root", "a home that cannot be written to", needs=("docker",))
def sealed_home(bench: Bench) -> Result:
    return bench.sealed()["non-root"]


@fault("non-root", "a uid without a name, and no USER", needs=("docker",))
def nameless(bench: Bench) -> Result:
    plant = "unset USER LOGNAME LNAME USERNAME"
    return bench.report("pytorch", "--user", "54321:54321", plant=plant, only=("non-root",))["non-root"]


@healthy("non-root", needs=("docker",))
def any_uid(bench: Bench) -> Result:
    return bench.report("pytorch", "--user", "54321:54321", only=("non-root",))["non-root"]


@fault("no-keys", "a private key in the image", needs=("docker",))
def planted_key(bench: Bench) -> Result:
    return bench.sick()["no-keys"]


@fault("no-keys", "a file that this user may not read", needs=("docker",))
def hidden(bench: Bench) -> Result:
    result = bench.short()["no-keys"]
    assert "/etc/hidden" in result.found
    return result


@fault("no-keys", "a key in a file of a package, changed since")
def key_in_a_package(bench: Bench) -> Result:
    return bench.run("no-keys", package(bench, recorded=1))


@healthy("no-keys")
def test_key_of_a_package(bench: Bench) -> Result:
    """A wheel's own test keys are public."""
    return bench.run("no-keys", package(bench, recorded=len(KEY)))


def package(bench: Bench, *, recorded: int) -> Context:
    """A package that brought a key, whose size is in its record."""
    context = bench.context()
    site = context.root / "site"
    (site / "a-1.dist-info").mkdir(parents=True)
    (site / "a-1.dist-info" / "RECORD").write_text(f"a/test.key,sha256=0,{recorded}\n")
    (site / "a").mkdir()
    (site / "a" / "test.key").write_text(KEY)
    return bench.context(root=context.root, site=site)


@fault("no-credentials", "an index address with a password", needs=("docker",))
def planted_password(bench: Bench) -> Result:
    return bench.sick()["no-credentials"]


def secret(bench: Bench, text: str) -> Result:
    context = bench.context()
    (context.root / "settings").write_text(text)
    return bench.run("no-credentials", context)


@fault("no-credentials", "a token of a model hub")
def hub_token(bench: Bench) -> Result:
    return secret(bench, "token: hf_" + "aB3" * 12)


@fault("no-credentials", "a cloud's access key")
def cloud_key(bench: Bench) -> Result:
    return secret(bench, "aws_access_key_id = AKIA" + "ABCD" * 4)


@fault("no-credentials", "a registry's login")
def registry_login(bench: Bench) -> Result:
    return secret(bench, '{"auths": {"r.example": {"auth": "bWU6aHVudGVyMg=="}}}')


@fault("no-credentials", "a .netrc")
def netrc(bench: Bench) -> Result:
    return secret(bench, "machine r.example login me password hunter2hunter2\n")


@healthy("no-credentials")
def no_secret(bench: Bench) -> Result:
    return secret(bench, "index-url = https://${USER}:${PASSWORD}@pypi.example/simple\npassword = ${PASSWORD}\n")


@fault("no-residue", "a file left in /tmp by the build")
def left_in_tmp(bench: Bench) -> Result:
    context = bench.context(started=time.time() + 60)
    (context.root / "tmp").mkdir()
    (context.root / "tmp" / "wheel.zip").write_text("left")
    return bench.run("no-residue", context)


@fault("no-residue", "package lists left by the build")
def left_lists(bench: Bench) -> Result:
    context = bench.context(started=time.time() + 60)
    lists = context.root / "var/lib/apt/lists"
    lists.mkdir(parents=True)
    (lists / "mirror_Packages").write_text("left")
    return bench.run("no-residue", context)


@healthy("no-residue")
def made_since(bench: Bench) -> Result:
    """What a job writes to /tmp is its own affair."""
    context = bench.context(started=time.time() - 60)
    (context.root / "tmp").mkdir()
    (context.root / "tmp" / "mine").write_text("new")
    return bench.run("no-residue", context)


@fault("shm-size", "64 MB of shared memory, Docker's default", needs=("docker",))
def docker_default(bench: Bench) -> Result:
    result = bench.sealed()["shm-size"]
    assert result.status == "warn", result
    return result


@fault("shm-size", "too little for a single batch", needs=("docker",))
def far_too_little(bench: Bench) -> Result:
    result = bench.short()["shm-size"]
    assert result.status == "fail", result
    return result


healthy_in("pytorch", "non-root", "no-keys", "no-credentials", "no-residue", "shm-size")
