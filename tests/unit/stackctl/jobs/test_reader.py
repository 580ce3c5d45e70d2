from __future__ import annotations

import kubernetes_validate
import pytest

from stackctl.jobs import reader


@pytest.mark.parametrize("version", ["1.32", "1.34", "1.37"])
def test_it_is_what_kubernetes_takes(version: str) -> None:
    made = reader.manifest("read", "team", claim="ckpt", image="mine:1", command=["python", "-c", "print('$(A)')"])
    kubernetes_validate.validate(made, version, strict=True)


def test_it_can_only_read_and_goes_by_itself() -> None:
    made = reader.manifest("read", "team", claim="ckpt", image="mine:1", command=["python", "-c", "print('$(A)')"])
    pod = made["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["volumeMounts"] == [{"name": "out", "mountPath": "/out", "readOnly": True}]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["args"][-1] == "print('$$(A)')"
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert "stackctl.io/run" not in made["metadata"]["labels"], "it is no run, and not listed as one"
    assert {"ttlSecondsAfterFinished", "activeDeadlineSeconds"} <= made["spec"].keys()
