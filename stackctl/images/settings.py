"""Where a build takes its packages from: mirrors, wheelhouse, private CA. Read from the environment only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from stackctl import folders
from stackctl.errors import InvalidInput
from stackctl.images.catalog import PREFIX, Target, prefix_of

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that a build takes from the environment. An empty value means: the public default."""

    wheelhouse: Path | None = None
    ca_bundle: Path | None = None
    package_index: str = ""
    torch_index: str | None = None
    apt_mirror: str = ""
    base_registry: str = ""
    image_prefix: str = PREFIX
    proxies: dict[str, str] = {}
    offline: bool = False
    """Build without a network, from the wheelhouse alone."""


def from_env(env: Mapping[str, str]) -> Settings:
    """Read the settings.

    STACK_WHEELHOUSE, STACK_CA_BUNDLE (else SSL_CERT_FILE), STACK_TORCH_INDEX, STACK_APT_MIRROR,
    STACK_BASE_REGISTRY, STACK_IMAGE_PREFIX; the package index as uv and pip name it (UV_DEFAULT_INDEX, UV_INDEX_URL,
    PIP_INDEX_URL); the usual proxy variables.

    Raises:
        InvalidInput: A named folder or file does not exist.
    """
    return Settings(
        wheelhouse=_existing(env, "STACK_WHEELHOUSE", folder=True),
        ca_bundle=_existing(env, "STACK_CA_BUNDLE") or _existing(env, "SSL_CERT_FILE"),
        package_index=next((env[k] for k in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL") if env.get(k)), ""),
        torch_index=_without_password(env, "STACK_TORCH_INDEX"),
        apt_mirror=(_without_password(env, "STACK_APT_MIRROR") or "").rstrip("/"),
        base_registry=(_without_password(env, "STACK_BASE_REGISTRY") or "").rstrip("/"),
        image_prefix=prefix_of(env),
        proxies={key: env[key] for key in PROXIES if env.get(key)},
    )


def at_registry(image: str, settings: Settings) -> str:
    """A base image, at the registry that the settings name."""
    return f"{settings.base_registry}/{image}" if settings.base_registry else image


def base_image(target: Target, settings: Settings) -> str:
    """The base image of a build. Offline it is the one of the wheelhouse, which has the plain name."""
    return target.base.image if settings.offline else at_registry(target.base.pinned, settings)


def uv_toml(settings: Settings) -> str:
    """uv's configuration inside the build.

    It is handed in as a secret, since an index address may hold a password and a build argument would stay in
    the image's history.
    """
    if settings.offline:
        return "offline = true\nno-index = true\n"
    if not settings.package_index:
        return ""
    return f"[[index]]\nurl = {json.dumps(settings.package_index)}\ndefault = true\n"


def uv_environment(settings: Settings, env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a uv of ours: the index and the certificates that a build of these settings has.

    Else the names of private packages would be asked of the public index.
    """
    given = dict(env)
    if settings.package_index:
        given.pop("UV_INDEX_URL", None)
        given["UV_DEFAULT_INDEX"] = settings.package_index
    if settings.ca_bundle:
        given["SSL_CERT_FILE"] = str(settings.ca_bundle)
    return given


def pip_conf(settings: Settings) -> str:
    """pip's configuration inside the build; a secret for the same reason."""
    if settings.offline:
        return "[global]\nno-index = true\n"
    return f"[global]\nindex-url = {settings.package_index}\n" if settings.package_index else ""


def _without_password(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name)
    if value and "@" in value:
        raise InvalidInput(
            "holds a user name or password, and it would stay in the image's history",
            where=name,
            hint="put the wheels into STACK_WHEELHOUSE, or use a mirror that needs no password",
        )
    return value


def _existing(env: Mapping[str, str], name: str, *, folder: bool = False) -> Path | None:
    value = env.get(name)
    if not value:
        return None
    path = folders.expanded(value)
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise InvalidInput(f"there is no {kind} {value}", where=name, hint="correct it, or unset it")
    return path.resolve()
