from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from stackctl import assets
from stackctl.errors import InvalidInput
from stackctl.images import build, catalog, settings
from stackctl.images.settings import Settings

LABELS = {"revision": "abc", "org.opencontainers.image.created": "2026-11-22T06:35:03+00:00"}


def plan(chosen: Settings, variant: str = "cpu") -> build.BuildPlan:
    target = catalog.targets(catalog.load(), "pytorch", variant)[0]
    return build.plan(target, chosen, context=Path("/context"), images=assets.images_dir(), labels=LABELS)


def test_a_plain_build_uses_public_sources_only() -> None:
    argv = plan(Settings()).argv
    assert argv[:6] == ("docker", "buildx", "build", "--load", "--tag", "stack-pytorch:cpu")
    assert argv[-1] == "/context"
    assert "--label" in argv
    assert not any(word.startswith(("wheelhouse", "id=", "FRAMEWORK_INDEX", "BASE_IMAGE")) for word in argv)


def test_the_image_for_development_is_a_stage_of_the_same_dockerfile() -> None:
    target = msgspec.structs.replace(catalog.targets(catalog.load(), "pytorch", "cpu")[0], development=True)
    steps = build.plan(target, Settings(), context=Path("/context"), images=assets.images_dir(), labels={})
    assert steps.tag == "stack-pytorch:cpu-devel"
    assert " ".join(steps.argv).partition("--file")[2].split()[1:3] == ["--target", "devel"]


def test_settings_become_arguments_contexts_and_secrets(tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    steps = plan(
        Settings(
            wheelhouse=tmp_path,
            ca_bundle=Path("/ca.pem"),
            package_index="https://user:secret@mirror.example/simple",
            apt_mirror="http://mirror.example/debian",
            base_registry="mirror.example/library",
            proxies={"HTTPS_PROXY": "http://proxy.example:3128"},
        )
    )
    assert f"wheelhouse={tmp_path}" in steps.argv
    assert "id=ca,src=/ca.pem" in steps.argv
    assert "FRAMEWORK_INDEX=" in steps.argv, "the wheelhouse has torch: its own index need not answer"
    assert "BASE_IMAGE=mirror.example/library/debian:bookworm-slim" in steps.argv
    assert "APT_MIRROR=http://mirror.example/debian" in steps.argv
    assert "HTTPS_PROXY" in steps.argv
    assert not any("proxy.example" in word for word in steps.argv), "its value may hold a password"


def test_an_image_is_dated_as_its_commit() -> None:
    assert "SOURCE_DATE_EPOCH=1795329303" in plan(Settings()).argv


def test_a_password_in_an_index_address_is_not_on_the_command_line() -> None:
    steps = plan(Settings(package_index="https://user:secret@mirror.example/simple"))
    assert not any("secret@" in word for word in steps.argv)
    assert "id=uv_toml,env=STACK_SECRET_UV_TOML" in steps.argv
    assert "user:secret@mirror.example" in steps.secrets["STACK_SECRET_UV_TOML"]
    assert "user:secret@mirror.example" in steps.secrets["STACK_SECRET_PIP_CONF"]


def test_offline_means_no_network_no_index_and_debian_packages_from_the_wheelhouse(tmp_path: Path) -> None:
    steps = plan(Settings(wheelhouse=tmp_path, offline=True, package_index="https://mirror.example/simple"))
    assert steps.argv[steps.argv.index("--network") + 1] == "none"
    assert f"debs={tmp_path}/debs/pytorch-cpu" in steps.argv
    assert "no-index = true" in steps.secrets["STACK_SECRET_UV_TOML"]
    assert "no-index = true" in steps.secrets["STACK_SECRET_PIP_CONF"]
    assert "mirror.example" not in str(steps)


@pytest.mark.parametrize(
    ("proxy", "mode"), [("http://proxy.example", "max"), ("http://user:secret@proxy.example", "min")]
)
def test_a_push_carries_provenance_without_passwords(proxy: str, mode: str) -> None:
    target = catalog.targets(catalog.load(), "pytorch", "cpu")[0]
    chosen = Settings(proxies={"HTTPS_PROXY": proxy})
    name = "registry.example/pytorch:1"
    steps = build.plan(target, chosen, context=Path("/context"), images=assets.images_dir(), labels={}, push_as=name)
    assert steps.argv[3:7] == ("--push", "--tag", name, f"--provenance=mode={mode}")


def test_a_wheelhouse_without_torch_leaves_torch_to_its_index(tmp_path: Path) -> None:
    (tmp_path / "torch-2.12.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    assert not any(word.startswith("FRAMEWORK_INDEX") for word in plan(Settings(wheelhouse=tmp_path)).argv)


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    chosen = settings.from_env(
        {
            "STACK_WHEELHOUSE": str(tmp_path),
            "SSL_CERT_FILE": str(ca),
            "PIP_INDEX_URL": "https://mirror.example/simple",
            "STACK_APT_MIRROR": "http://mirror.example/debian/",
            "no_proxy": "localhost",
        }
    )
    assert chosen.wheelhouse == tmp_path
    assert chosen.ca_bundle == ca
    assert chosen.package_index == "https://mirror.example/simple"
    assert chosen.apt_mirror == "http://mirror.example/debian"
    assert chosen.proxies == {"no_proxy": "localhost"}


@pytest.mark.parametrize("name", ["STACK_TORCH_INDEX", "STACK_APT_MIRROR", "STACK_BASE_REGISTRY"])
def test_a_password_where_it_would_stay_in_the_history_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name}: holds a user name or password"):
        settings.from_env({name: "https://user:secret@mirror.example/whl"})


@pytest.mark.parametrize("name", ["STACK_WHEELHOUSE", "STACK_CA_BUNDLE"])
def test_a_setting_that_names_nothing_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"{name}: there is no"):
        settings.from_env({name: str(tmp_path / "absent")})
