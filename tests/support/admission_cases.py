"""Pods, limit ranges and quotas, and who refuses them: for tests/unit, and for a real API server in tests/cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stackctl.jobs import job as jobs
from stackctl.jobs import kubernetes, profiles
from stackctl.jobs.placement import place
from stackctl.runs.admission import Refusal

GPU = "nvidia.com/gpu"
OVERHEAD = {"cpu": "500m"}
"""Of the runtime class `stacktest`."""


@dataclass(frozen=True)
class Case:
    """What a job asks for, what its namespace has, and who refuses it: kind and resources; nothing if it is admitted.

    `there` are the requests and limits of a pod that is there already.
    """

    refused: str = ""
    over: tuple[str, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)
    gpus: int = 0
    ranges: tuple[dict[str, Any], ...] = ()
    quotas: tuple[dict[str, Any], ...] = ()
    there: dict[str, dict[str, str]] = field(default_factory=dict)

    def manifests(self, namespace: str) -> list[kubernetes.Manifest]:
        """Every object of the job."""
        job = jobs.make(name="a", arguments=["true"], gpus=self.gpus, device="cpu")
        profile = self.asked.get("profile", profiles.load("generic"))
        placement = place(job, **{"namespace": namespace, "image": "none", **self.asked, "profile": profile})
        return kubernetes.manifests(job, placement, token="t", packed="eA==")

    @property
    def overhead(self) -> dict[str, str]:
        """What its runtime class takes of each pod."""
        return OVERHEAD if self.asked.get("profile") == RUNTIME else {}


def container(**bounds: Any) -> dict[str, Any]:
    return {"type": "Container", **bounds}


def pod(**bounds: Any) -> dict[str, Any]:
    return {"type": "Pod", **bounds}


def hard(amounts: dict[str, str], scope: str = "", operator: str = "", *values: str) -> dict[str, Any]:
    """A quota's spec."""
    if not operator:
        return {"hard": amounts, **({"scopes": [scope]} if scope else {})}
    row = {"scopeName": scope, "operator": operator, **({"values": list(values)} if values else {})}
    return {"hard": amounts, "scopeSelector": {"matchExpressions": [row]}}


CODE = {"code": "c" * 64}
CRITICAL = "system-cluster-critical"
RUNTIME = profiles.Profile(summary="", runtime_class="stacktest")
HUGE = profiles.Profile(summary="", resources={"hugepages-2Mi": "1Gi"})

CASES = {
    "nothing bounds it": Case(asked={"cpu": "2"}),
    "cpu is not said": Case("unsaid", ("requests.cpu",), quotas=(hard({"requests.cpu": "4"}),)),
    "cpu and memory are not said": Case("unsaid", ("cpu", "memory"), quotas=(hard({"cpu": "4", "memory": "4Gi"}),)),
    "cpu is said": Case(asked={"cpu": "2"}, quotas=(hard({"requests.cpu": "4"}),)),
    "cpu is more": Case("too small", ("cpu",), {"cpu": "2"}, quotas=(hard({"cpu": "1"}),)),
    "no cpu limit": Case("unsaid", ("limits.cpu",), {"cpu": "2"}, quotas=(hard({"limits.cpu": "4"}),)),
    "a cpu limit alone": Case(asked={"cpu_limit": "2"}, quotas=(hard({"limits.cpu": "4", "requests.cpu": "2"}),)),
    "a cpu limit that is more": Case(
        "too small", ("limits.cpu",), {"cpu_limit": "2"}, quotas=(hard({"limits.cpu": "1"}),)
    ),
    "memory is more": Case(
        "too small", ("limits.memory",), {"memory": "2Gi"}, quotas=(hard({"limits.memory": "1Gi"}),)
    ),
    "code is unpacked within a quota": Case(
        asked={"cpu": "1", "cpu_limit": "2", "memory": "1Gi", **CODE},
        quotas=(hard({"requests.cpu": "1", "limits.cpu": "2", "requests.memory": "1Gi", "limits.memory": "1Gi"}),),
    ),
    "code, and nothing is said": Case("unsaid", ("memory",), CODE, quotas=(hard({"memory": "1Gi"}),)),
    "tenths add up": Case(asked={"cpu": "300m"}, quotas=(hard({"cpu": "1"}),), there={"requests": {"cpu": "700m"}}),
    "others hold the rest": Case(
        "quota", ("cpu",), {"cpu": "301m"}, quotas=(hard({"cpu": "1"}),), there={"requests": {"cpu": "700m"}}
    ),
    "a default is counted": Case(ranges=(container(default={"cpu": "1"}),), quotas=(hard({"requests.cpu": "1"}),)),
    "a default that is more": Case(
        "too small",
        ("requests.cpu",),
        ranges=(container(defaultRequest={"cpu": "1"}),),
        quotas=(hard({"requests.cpu": "500m"}),),
    ),
    "a default limit below the request": Case(
        "invalid", ("cpu",), {"cpu": "2"}, ranges=(container(default={"cpu": "1"}),)
    ),
    "a default limit below the request of a job with code": Case(
        "invalid", ("cpu",), {"cpu": "2", **CODE}, ranges=(container(default={"cpu": "1", "memory": "1Gi"}),)
    ),
    "a default request above the limit": Case(
        asked={"memory": "1Gi"}, ranges=(container(defaultRequest={"memory": "4Gi"}),)
    ),
    "a maximum is the default limit": Case(asked={"cpu": "500m"}, ranges=(container(max={"cpu": "1"}),)),
    "a request above a maximum": Case("invalid", ("cpu",), {"cpu": "2"}, ranges=(container(max={"cpu": "1"}),)),
    "memory above a maximum": Case(
        "limit range", ("memory",), {"memory": "2Gi"}, ranges=(container(max={"memory": "1Gi"}),)
    ),
    "a cpu limit above a maximum": Case(
        "limit range", ("cpu",), {"cpu": "1", "cpu_limit": "2"}, ranges=(container(max={"cpu": "1"}),)
    ),
    "memory below a minimum": Case(
        "limit range", ("memory",), {"memory": "2Gi"}, ranges=(container(min={"memory": "4Gi"}),)
    ),
    "a minimum is the default request": Case(ranges=(container(min={"cpu": "1"}),)),
    "two bounds at once": Case(
        "limit range",
        ("cpu", "memory"),
        {"cpu_limit": "2", "memory": "2Gi", **CODE},
        ranges=(container(max={"cpu": "1"}, min={"memory": "4Gi"}),),
    ),
    "a pod without a limit": Case("limit range", ("cpu",), {"cpu": "2"}, ranges=(pod(max={"cpu": "4"}),)),
    "a pod above its maximum": Case("limit range", ("cpu",), {"cpu_limit": "8"}, ranges=(pod(max={"cpu": "4"}),)),
    "a pod within its maximum": Case(asked={"cpu_limit": "4", **CODE}, ranges=(pod(max={"cpu": "4"}),)),
    "a pod that says nothing": Case("limit range", ("memory",), ranges=(pod(min={"memory": "1Gi"}),)),
    "more than twice": Case(
        "limit range", ("cpu",), {"cpu": "1", "cpu_limit": "4"}, ranges=(container(maxLimitRequestRatio={"cpu": "2"}),)
    ),
    "twice": Case(asked={"cpu": "2", "cpu_limit": "4"}, ranges=(container(maxLimitRequestRatio={"cpu": "2"}),)),
    "a ratio and no limit": Case(
        "limit range", ("cpu",), {"cpu": "1"}, ranges=(container(maxLimitRequestRatio={"cpu": "2"}),)
    ),
    "a ratio and no request": Case("limit range", ("cpu",), ranges=(pod(maxLimitRequestRatio={"cpu": "2"}),)),
    "gpus are more": Case("too small", (f"requests.{GPU}",), gpus=8, quotas=(hard({"requests.nvidia.com/gpu": "4"}),)),
    "gpus fit": Case(gpus=8, quotas=(hard({"requests.nvidia.com/gpu": "8"}),)),
    "no gpus, and none are asked for": Case(quotas=(hard({"requests.nvidia.com/gpu": "0"}),)),
    "gpus are overdrawn, and none are asked for": Case(
        quotas=(hard({"requests.nvidia.com/gpu": "1"}),), there={"limits": {GPU: "2"}}
    ),
    "a default of gpus": Case(
        "too small",
        (f"requests.{GPU}",),
        ranges=(container(default={GPU: "1"}),),
        quotas=(hard({"requests.nvidia.com/gpu": "0"}),),
    ),
    "no pods": Case("too small", ("pods",), quotas=(hard({"pods": "0"}),)),
    "no more pods": Case(
        "quota", ("count/pods",), quotas=(hard({"count/pods": "1"}),), there={"requests": {"cpu": "1"}}
    ),
    "objects of others are overdrawn": Case(quotas=(hard({"count/configmaps": "0", "configmaps": "0"}),)),
    "disk is more": Case(
        "too small",
        ("requests.ephemeral-storage",),
        {"ephemeral_storage": "20Gi"},
        quotas=(hard({"requests.ephemeral-storage": "10Gi"}),),
    ),
    "disk need not be said": Case(quotas=(hard({"limits.ephemeral-storage": "10Gi"}),)),
    "a default of disk": Case(
        "too small",
        ("limits.ephemeral-storage",),
        ranges=(container(default={"ephemeral-storage": "10Gi"}),),
        quotas=(hard({"limits.ephemeral-storage": "5Gi"}),),
    ),
    "huge pages": Case(
        "too small", ("requests.hugepages-2Mi",), {"profile": HUGE}, quotas=(hard({"requests.hugepages-2Mi": "1Mi"}),)
    ),
    "for pods without amounts": Case("too small", ("pods",), quotas=(hard({"pods": "0"}, "BestEffort"),)),
    "for pods without amounts, and it has some": Case(asked={"cpu": "1"}, quotas=(hard({"pods": "0"}, "BestEffort"),)),
    "for pods without amounts, and a default gives some": Case(
        ranges=(container(default={"cpu": "1"}),), quotas=(hard({"pods": "0"}, "BestEffort"),)
    ),
    "for pods with amounts": Case("unsaid", ("cpu",), {"memory": "1Gi"}, quotas=(hard({"cpu": "0"}, "NotBestEffort"),)),
    "for pods without a deadline": Case("too small", ("pods",), quotas=(hard({"pods": "0"}, "NotTerminating"),)),
    "for pods with a deadline": Case(quotas=(hard({"pods": "0"}, "Terminating"),)),
    "for a class": Case(
        "too small", ("pods",), {"priority": CRITICAL}, quotas=(hard({"pods": "0"}, "PriorityClass", "In", CRITICAL),)
    ),
    "for a class that it has not": Case(quotas=(hard({"pods": "0"}, "PriorityClass", "In", CRITICAL),)),
    "for all but a class": Case(
        "too small", ("pods",), quotas=(hard({"pods": "0"}, "PriorityClass", "NotIn", CRITICAL),)
    ),
    "for pods with a class": Case(quotas=(hard({"pods": "0"}, "PriorityClass", "Exists"),)),
    "for pods without a class": Case(
        "too small", ("pods",), quotas=(hard({"pods": "0"}, "PriorityClass", "DoesNotExist"),)
    ),
    "for pods that look elsewhere": Case(
        asked={"apart": True}, quotas=(hard({"pods": "0"}, "CrossNamespacePodAffinity"),)
    ),
    "one of two quotas": Case(
        "too small",
        ("limits.memory",),
        {"memory": "2Gi"},
        quotas=(hard({"memory": "4Gi"}), hard({"limits.memory": "1Gi"})),
    ),
    "what its runtime takes": Case(
        "too small", ("requests.cpu",), {"cpu": "2", "profile": RUNTIME}, quotas=(hard({"requests.cpu": "2"}),)
    ),
    "no jobs": Case("too small", ("count/jobs.batch",), quotas=(hard({"count/jobs.batch": "0"}),)),
    "no secrets": Case("too small", ("secrets",), quotas=(hard({"secrets": "0"}),)),
    "no secrets, counted as objects": Case("too small", ("count/secrets",), quotas=(hard({"count/secrets": "0"}),)),
    "no services": Case("too small", ("services",), quotas=(hard({"services": "0"}),)),
    "no load balancers": Case(quotas=(hard({"services.loadbalancers": "0", "services.nodeports": "0"}),)),
    "no network policies": Case(
        "too small",
        ("count/networkpolicies.networking.k8s.io",),
        quotas=(hard({"count/networkpolicies.networking.k8s.io": "0"}),),
    ),
}


def shape(found: list[Refusal]) -> tuple[str, tuple[str, ...]]:
    """Of what is found the part that the API server says first, as kind and resources."""
    if not found:
        return "", ()
    first = found[0]
    return first.kind, tuple(sorted({name for row in found if row[:2] == first[:2] for name in row.resources}))
