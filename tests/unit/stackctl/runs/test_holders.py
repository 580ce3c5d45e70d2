from __future__ import annotations

import msgspec

from stackctl.jobs.kubernetes import RUN_LABEL
from stackctl.runs import holders
from stackctl.runs.holders import Placed

GPU = "nvidia.com/gpu"


def pod(run: str, node: str, gpus: int, namespace: str = "team") -> Placed:
    about = {"name": f"pod-{run}", "namespace": namespace, "labels": {RUN_LABEL: run} if run else {}}
    spec = {"nodeName": node, "containers": [{"resources": {"requests": {GPU: str(gpus)}}}]}
    return msgspec.convert({"metadata": about, "spec": spec}, Placed)


def told(*pods: Placed) -> str:
    return holders.told(pods, "mine", "team", [GPU])


def test_this_run_comes_first_then_who_holds_most() -> None:
    assert told(pod("small", "a", 1), pod("large", "b", 4), pod("large", "c", 4), pod("mine", "d", 2)) == (
        "it holds 2 nvidia.com/gpu on d; large holds 8 nvidia.com/gpu on b, c; small holds 1 nvidia.com/gpu on a"
    )


def test_others_are_named_by_their_namespace_and_pods_of_no_run_by_their_own_name() -> None:
    assert told(pod("mine", "a", 2, "other"), pod("", "b", 1)) == (
        "mine of namespace other holds 2 nvidia.com/gpu on a; the pod pod- holds 1 nvidia.com/gpu on b"
    )


def test_what_holds_nothing_of_it_is_left_out_and_many_are_counted() -> None:
    assert told(pod("none", "a", 0)) == ""
    said = told(*(pod(f"run-{number}", "a", 9 - number) for number in range(8)))
    assert said.endswith("run-4 holds 5 nvidia.com/gpu on a; and 3 more")
