from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stackctl.errors import MissingHere
from stackctl.jobs.profiles import Needs, Profile, Toleration
from stackctl.runs.feasibility import Node
from stackctl.suite.cluster import Size, size

GPU = "nvidia.com/gpu"
PROFILE = Profile(summary="", with_gpus=Needs(tolerations=(Toleration(key=GPU, operator="Exists"),)))


def node(name: str, gpus: int = 0, give: int | None = None, **spec: Any) -> Node:
    ready = [{"type": "Ready", "status": "True"}]
    capacity, allocatable = ({GPU: str(number)} if gpus else {} for number in (gpus, gpus if give is None else give))
    status = {"capacity": capacity, "allocatable": allocatable, "conditions": ready}
    return msgspec.convert({"metadata": {"name": name}, "spec": spec, "status": status}, Node)


TAINT: dict[str, Any] = {"taints": [{"key": GPU, "effect": "NoSchedule"}]}
CONTROL = node("control", taints=[{"key": "control-plane", "effect": "NoSchedule"}])
CORDONED = node("c", 8, unschedulable=True)


@pytest.mark.parametrize(
    ("found", "nodes", "gpus", "expected"),
    [
        # All GPUs of all nodes that have some; the others are not meant.
        ([node("a", 8), node("b", 8, **TAINT), node("cpu"), CONTROL], None, None, Size(2, 8)),
        # Nodes differ: what all have, or what as many as are asked for have.
        ([node("a", 8), node("b", 4)], None, None, Size(2, 4)),
        ([node("a", 8), node("b", 4), node("c", 8)], 2, None, Size(2, 8)),
        ([node("a", 8)], 3, None, Size(3, 8)),
        # Left out, with the reason.
        ([node("a", 8), CORDONED], None, None, Size(1, 8, ("c: cordoned",))),
        ([node("a", 8), node("b", 8, give=7)], None, None, Size(1, 8, (f"b: has 7 of 8 {GPU} to give",))),
        ([node("a", 8), node("b", 4)], None, 6, Size(1, 6, (f"b: has 4 of 4 {GPU} to give",))),
        # On the CPU a node with GPUs is a node; one that is tainted for GPUs takes no pod without.
        ([node("a"), node("b")], None, None, Size(2, 0)),
        ([node("a"), CONTROL], None, 0, Size(1, 0, ("control: has the taint control-plane:NoSchedule",))),
        ([node("a"), node("b", 8, **TAINT)], None, 0, Size(1, 0, (f"b: has the taint {GPU}:NoSchedule",))),
    ],
)
def test_what_is_tested(found: list[Node], nodes: int | None, gpus: int | None, expected: Size) -> None:
    assert size(found, PROFILE, nodes=nodes, gpus=gpus) == expected


@pytest.mark.parametrize(
    ("found", "gpus", "said"), [([CORDONED], None, "c: cordoned"), ([node("a")], 8, "no node"), ([], None, "no node")]
)
def test_no_node_to_test(found: list[Node], gpus: int | None, said: str) -> None:
    with pytest.raises(MissingHere, match=said):
        size(found, PROFILE, nodes=None, gpus=gpus)


def test_only_a_few_of_those_left_out_are_told() -> None:
    assert Size(1, 8, ("a: cordoned",)).notes == ["not tested: a: cordoned"]
    assert Size(1, 8, tuple(f"n{number}: cordoned" for number in range(9))).notes[4:] == [
        "not tested: n4: cordoned",
        "not tested: 4 more",
    ]
