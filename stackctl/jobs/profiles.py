"""What differs between clusters, read from k8s/profiles/*.toml or a file of the user's own."""

from __future__ import annotations

import tomllib
from typing import Literal

import msgspec

from stackctl import assets, folders
from stackctl.errors import InvalidInput, did_you_mean


class Toleration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A taint that a job's pods may ignore, as in a pod's `tolerations`."""

    key: str
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class Needs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What pods of a cluster need beside the job's own.

    `resources` each pod has once (network devices, huge pages), `selector` is for nodes, `annotations` are the pod's,
    and `env` the ranks'.
    """

    resources: dict[str, str] = {}
    selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    runtime_class: str = ""
    annotations: dict[str, str] = {}
    env: dict[str, str] = {}


class Profile(Needs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a cluster calls its GPUs, and what its pods need: all of them, and `with_gpus` those that ask for GPUs.

    `gpu` is the resource's name. `fabric` is the network between nodes that pods with GPUs are promised: the launcher
    says where NCCL takes another.
    """

    summary: str
    gpu: str = "nvidia.com/gpu"
    fabric: Literal["any", "tcp", "rdma", "efa", "tcpxo"] = "any"
    with_gpus: Needs = Needs()

    def effective(self, *, gpus: bool) -> Profile:
        """What of it counts for pods that ask for GPUs, or for those that do not, in one."""
        if not gpus:
            return msgspec.structs.replace(self, fabric="any", with_gpus=Needs())
        more = self.with_gpus
        return Profile(
            summary=self.summary,
            gpu=self.gpu,
            fabric=self.fabric,
            resources={**self.resources, **more.resources},
            selector={**self.selector, **more.selector},
            tolerations=(*self.tolerations, *(row for row in more.tolerations if row not in self.tolerations)),
            runtime_class=more.runtime_class or self.runtime_class,
            annotations={**self.annotations, **more.annotations},
            env={**self.env, **more.env},
        )


def names() -> list[str]:
    """The profiles that come with the stack."""
    return sorted(path.stem for path in assets.profiles_dir().glob("*.toml"))


def load(name: str) -> Profile:
    """A profile by its name, or from a file: a name with a slash or a `.toml` at its end.

    Raises:
        InvalidInput: There is none, or it is not a profile; names the key.
    """
    if "/" in name or name.endswith(".toml"):
        path = folders.expanded(name)
    elif name in names():
        path = assets.profiles_dir() / f"{name}.toml"
    else:
        hint = f"{did_you_mean(name, names())}\n  a file of your own ends in .toml"
        raise InvalidInput("no profile has this name", where=f"--profile {name}", hint=hint)
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Profile)
    except FileNotFoundError:
        raise InvalidInput("there is no such file", where=f"--profile {name}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidInput(f"is not a profile: {error}", where=f"--profile {name}") from None
