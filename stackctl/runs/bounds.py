"""The fields of limit ranges, quotas and pods to be that admission judges by; the rest is not even decoded."""

from __future__ import annotations

from typing import Any

import msgspec


class Camel(msgspec.Struct, frozen=True, rename="camel"):
    """Named as in Kubernetes."""


class Named(Camel, frozen=True):
    """An object's name."""

    name: str = ""


class Resources(Camel, frozen=True):
    """What a container asks for, and may use."""

    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class Container(Camel, frozen=True):
    """A container of a pod. One that starts before the others and stays up has the policy `Always`."""

    name: str = ""
    resources: Resources = Resources()
    restart_policy: str = ""


class PodSpec(Camel, frozen=True):
    """A pod that is to be made."""

    containers: list[Container] = []
    init_containers: list[Container] = []
    overhead: dict[str, str] = {}
    priority_class_name: str = ""
    active_deadline_seconds: int | None = None
    affinity: dict[str, Any] = {}

    @property
    def all(self) -> list[Container]:
        """Every container."""
        return [*self.containers, *self.init_containers]


class LimitRow(Camel, frozen=True):
    """A row of a limit range: for each container, each pod or each claim."""

    type: str = ""
    min: dict[str, str] = {}
    max: dict[str, str] = {}
    default: dict[str, str] = {}
    default_request: dict[str, str] = {}
    max_limit_request_ratio: dict[str, str] = {}


class LimitSpec(Camel, frozen=True):
    """The rows of a limit range."""

    limits: list[LimitRow] = []


class LimitRange(Camel, frozen=True):
    """What a namespace's containers and pods may ask for, and what they have that ask for nothing."""

    metadata: Named = Named()
    spec: LimitSpec = LimitSpec()


class Scope(Camel, frozen=True):
    """Which pods a quota is for."""

    scope_name: str
    operator: str = "Exists"
    values: list[str] = []


class ScopeSelector(Camel, frozen=True):
    """Scopes, all of which must hold."""

    match_expressions: list[Scope] = []


class QuotaSpec(Camel, frozen=True):
    """What a quota allows in all, and of which pods."""

    hard: dict[str, str] = {}
    scopes: list[str] = []
    scope_selector: ScopeSelector = ScopeSelector()


class QuotaStatus(Camel, frozen=True):
    """What is in force, and what is in use."""

    hard: dict[str, str] = {}
    used: dict[str, str] = {}


class Quota(Camel, frozen=True):
    """What a namespace may have in all."""

    metadata: Named = Named()
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()

    @property
    def hard(self) -> dict[str, str]:
        """What it allows; the status of one that was just made is still empty."""
        return self.status.hard or self.spec.hard

    @property
    def scopes(self) -> list[Scope]:
        """Which pods it is for."""
        return [*(Scope(name) for name in self.spec.scopes), *self.spec.scope_selector.match_expressions]
