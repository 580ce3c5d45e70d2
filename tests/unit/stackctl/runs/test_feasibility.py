from __future__ import annotations

from typing import Any

import msgspec

from stackctl.jobs.profiles import Toleration
from stackctl.runs import feasibility
from stackctl.runs.feasibility import Node, Pod, Room

GPU = "nvidia.com/gpu"
NEED = {GPU: 8.0}


def node(name: str, gpus: int = 8, **given: Any) -> Node:
    status = {"allocatable": {GPU: str(gpus), "pods": "110", "cpu": "4", "memory": "16Gi"}}
    ready = [{"type": "Ready", "status": given.pop("ready", "True")}]
    row = {"metadata": {"name": name, "labels": given.pop("labels", {})}, "spec": given}
    return msgspec.convert({**row, "status": {**status, "conditions": ready}}, Node)


def pod(
    where: str,
    *containers: dict[str, str],
    first: dict[str, str] | None = None,
    beside: dict[str, str] | None = None,
    overhead: dict[str, str] | None = None,
) -> Pod:
    """A pod with containers, one that starts before them, and before that one that stays up beside them."""

    def row(requests: dict[str, str], **more: str) -> dict[str, Any]:
        return {"resources": {"requests": requests}, **more}

    starting = [*([row(beside, restartPolicy="Always")] if beside else []), *([row(first)] if first else [])]
    spec = {"nodeName": where, "containers": [row(requests) for requests in containers], "initContainers": starting}
    return msgspec.convert({"spec": {**spec, "overhead": overhead or {}}}, Pod)


def room(nodes: list[Node], *pods: Pod, need: dict[str, float] = NEED, **given: Any) -> Room:
    return feasibility.room(nodes, pods, need, **{"selector": {}, "tolerations": (), **given})


def test_what_runs_there_counts() -> None:
    found = room([node("a"), node("b")], pod("a", {GPU: "5"}))
    assert (found.now, found.ever) == (1, 2)
    assert found.short == ("a: nvidia.com/gpu 3 of 8 free",)


def test_a_pod_asks_for_all_its_containers_or_its_first_whichever_is_more() -> None:
    assert room([node("a")], pod("a", {GPU: "1"}, {GPU: "1"}), need={GPU: 6.0}).now == 1
    assert room([node("a")], pod("a", {GPU: "1"}, first={GPU: "4"}), need={GPU: 6.0}).now == 0


def test_what_stays_up_beside_a_pod_counts_and_what_its_runtime_takes() -> None:
    assert room([node("a")], pod("a", {GPU: "1"}, beside={GPU: "1"}), need={GPU: 6.0}).now == 1
    assert room([node("a")], pod("a", {GPU: "1"}, beside={GPU: "2"}), need={GPU: 6.0}).now == 0
    assert room([node("a")], pod("a", {GPU: "1"}, beside={GPU: "1"}, first={GPU: "2"}), need={GPU: 6.0}).now == 0
    assert room([node("a")], pod("a", {GPU: "1"}, overhead={GPU: "2"}), need={GPU: 6.0}).now == 0


def test_small_pods_share_a_node() -> None:
    assert room([node("a"), node("b", 3)], need={GPU: 2.0}).now == 5
    assert room([node("a")], need={GPU: 1.0, "cpu": 1.5}).now == 2
    assert room([node("a")], need={}).now == 110, "a pod takes one of the node's places in any case"


def test_closed_nodes_say_why() -> None:
    taint = [{"key": "team", "value": "b", "effect": "NoSchedule"}]
    nodes = [node("a", ready="False"), node("b", unschedulable=True), node("c", taints=taint), node("d")]
    found = room(nodes, selector={"pool": "gpu"})
    assert (found.now, found.ever) == (0, 0)
    assert found.short[:2] == ("a: not ready", "b: cordoned")
    assert "d: has no label pool=gpu" in found.short
    assert room([node("c", taints=taint)]).short == ("c: has the taint team=b:NoSchedule",)


def test_tolerations_open_tainted_nodes() -> None:
    tainted = [node("a", taints=[{"key": GPU, "effect": "NoSchedule"}])]
    assert room(tainted).now == 0
    assert room(tainted, tolerations=[Toleration(GPU, "Exists")]).now == 1
    assert room(tainted, tolerations=[Toleration(GPU, "Exists", effect="NoExecute")]).now == 0
    assert room(tainted, tolerations=[Toleration(GPU, "Equal", "x")]).now == 0
    preferred = [node("a", taints=[{"key": GPU, "effect": "PreferNoSchedule"}])]
    assert room(preferred).now == 1


def test_a_refusal_names_the_nearest_nodes_first_and_not_all() -> None:
    nodes = [node("a", ready="False"), node("b", 2), node("c", 7), *(node(f"n{number}", 0) for number in range(10))]
    text = feasibility.refusal(room(nodes), nodes=2, need=NEED)
    first, second, third, *_, last = text.splitlines()
    assert first == "0 of 2 nodes fit now: each needs nvidia.com/gpu 8"
    assert (second, third) == ("  c: nvidia.com/gpu 7 of 7 free", "  b: nvidia.com/gpu 2 of 2 free")
    assert last == "  and 8 more"
    assert feasibility.refusal(room([node("a"), node("b")]), nodes=2, need=NEED) == ""


def test_pods_that_must_be_apart_take_a_node_each() -> None:
    found = room([node("a"), node("b", 3)], need={GPU: 2.0}, apart=True)
    assert (found.now, found.ever) == (2, 2)
    assert room([node("a")], pod("a", {GPU: "8"}), need={GPU: 2.0}, apart=True).now == 0
