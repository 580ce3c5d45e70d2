"""Whatever pod we make, no service mesh puts its sidecar into it."""

from __future__ import annotations

from typing import Any

import pytest

from stackctl.jobs import claim_reader, kubernetes, profiles
from stackctl.jobs import job as jobs
from stackctl.jobs.placement import place


def of_a_job() -> Any:
    made = jobs.make(name="gpt", workload="gpt", nodes=2, gpus=8)
    placement = place(made, namespace="team", profile=profiles.load("gke"), image="mine:1")
    return kubernetes.manifests(made, placement, token="t")[0]


def of_a_reader() -> Any:
    return claim_reader.manifest("read", "team", claim="ckpt", image="mine:1", command=["true"], node_choice={})


@pytest.mark.parametrize("manifest", [of_a_job(), of_a_reader()], ids=["job", "reader"])
@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("labels", "sidecar.istio.io/inject", "false"),
        ("labels", "istio.io/dataplane-mode", "none"),
        ("labels", "kuma.io/sidecar-injection", "disabled"),
        ("labels", "injector.nsm.nginx.com/auto-inject", "disabled"),
        ("annotations", "linkerd.io/inject", "disabled"),
        ("annotations", "consul.hashicorp.com/connect-inject", "false"),
        ("annotations", "openservicemesh.io/sidecar-injection", "disabled"),
        ("annotations", "appmesh.k8s.aws/sidecarInjectorWebhook", "disabled"),
        ("annotations", "injector.nsm.nginx.com/auto-inject", "false"),
        ("annotations", "sidecar.opentelemetry.io/inject", "false"),
    ],
)
def test_no_sidecar(manifest: Any, kind: str, name: str, value: str) -> None:
    assert manifest["spec"]["template"]["metadata"][kind][name] == value
