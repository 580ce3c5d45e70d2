import json
import re

import pytest

from stackrt.frameworks import DEFAULT, FRAMEWORKS, OF_IMAGES, Framework, horovod_hosts
from stackrt.launch import environment
from stackrt.launch.cpus import USUAL_SPINS
from stackrt.launch.layout import Layout, NodeLayout
from stackrt.launch.rank_env import layout_names, rank_env

NODES = (NodeLayout(1, "10.0.0.1", (5001,)), NodeLayout(3, "10.0.0.2", (6001, 6002, 6003), 2))


def layout(framework: str = "torch", device: str = "cpu", address: str = "node-0", interface: str = "") -> Layout:
    return Layout("run", 2, framework, device, address, 4000, NODES, interface=interface)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_rank_finds_the_local_rank_that_it_was_given(name: str) -> None:
    nodes = tuple(NodeLayout(2, f"10.0.0.{node}", (5001, 5002)) for node in (1, 2))
    for node, local_rank in ((0, 0), (0, 1), (1, 0), (1, 1)):
        job = Layout("run", 1, name, "cpu", "node-0", 4000, nodes)
        env = rank_env({"STACK_PROCS": "2", "LOCAL_RANK": "9"} if name != "torch" else {}, job, node, local_rank, "")
        assert FRAMEWORKS[name].local_rank(env) == local_rank


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_row_speaks_of_variables_that_are_set(name: str) -> None:
    row = FRAMEWORKS[name]
    made = row.environment(layout(name, interface="ib0"), 0, 0)
    assert {*row.defaults, *row.requests} <= made.keys()
    assert re.compile(row.lost_peer)


def test_a_new_framework_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Framework(
        title="Echo",
        short="echo",
        environment=lambda layout, node, local_rank: {"ECHO_RANK": f"{layout.first_rank(node) + local_rank}"},
        local_rank=lambda env: int(env["ECHO_RANK"]) % int(env["STACK_PROCS"]),
    )
    monkeypatch.setitem(FRAMEWORKS, "echo", row)
    assert environment.read({"STACK_FRAMEWORK": "echo"}).framework == "echo"
    assert rank_env({}, layout("echo"), 1, 1, "")["ECHO_RANK"] == "2"
    assert "ECHO_RANK" in layout_names()


def test_images_are_of_frameworks_that_are_imported_in_time() -> None:
    assert OF_IMAGES == ("torch", "tensorflow")
    assert all(FRAMEWORKS[name].import_budget > 0 for name in OF_IMAGES)
    assert DEFAULT in OF_IMAGES


def test_torch_on_uneven_nodes() -> None:
    env = rank_env({}, layout(), 1, 2, "/errors.json")
    assert env == {
        "RANK": "3",
        "LOCAL_RANK": "2",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "3",
        "GROUP_RANK": "1",
        "GROUP_WORLD_SIZE": "2",
        "ROLE_NAME": "default",
        "ROLE_RANK": "3",
        "ROLE_WORLD_SIZE": "4",
        "MASTER_ADDR": "node-0",
        "MASTER_PORT": "4000",
        "TORCHELASTIC_RESTART_COUNT": "1",
        "TORCHELASTIC_MAX_RESTARTS": "1",
        "TORCHELASTIC_RUN_ID": "run",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCHELASTIC_ERROR_FILE": "/errors.json",
        "OMP_NUM_THREADS": "2",
        "TF_NUM_INTRAOP_THREADS": "2",
        "GOMP_SPINCOUNT": str(USUAL_SPINS),
        "PYTHONUNBUFFERED": "1",
        "STACK_ATTEMPT": "2",
        "STACK_DEVICE": "cpu",
    }


@pytest.mark.parametrize(("address", "first"), [("node-0", "node-0:5001"), ("fd00::1", "[fd00::1]:5001")])
def test_tensorflow(address: str, first: str) -> None:
    env = rank_env({}, layout("tensorflow", address=address), 1, 1, "")
    assert json.loads(env["TF_CONFIG"]) == {
        "cluster": {"worker": [first, "10.0.0.2:6001", "10.0.0.2:6002", "10.0.0.2:6003"]},
        "task": {"type": "worker", "index": 2},
    }
    assert "RANK" not in env


def test_horovod() -> None:
    env = rank_env({"HOROVOD_RANK": "9", "HOROVOD_GLOO_TIMEOUT_SECONDS": "60"}, layout("horovod"), 1, 0, "")
    expected = {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "node-0",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "4000",
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "60",
        "HOROVOD_HOSTNAME": "node-1",
        "HOROVOD_RANK": "1",
        "HOROVOD_SIZE": "4",
        "HOROVOD_LOCAL_RANK": "0",
        "HOROVOD_LOCAL_SIZE": "3",
        "HOROVOD_CROSS_RANK": "1",
        "HOROVOD_CROSS_SIZE": "2",
    }
    assert {name: value for name, value in env.items() if name.startswith("HOROVOD")} == expected
    assert horovod_hosts(layout()) == "node-0:1,node-1:3"


def test_horovod_cross_communicator_has_only_nodes_with_that_local_rank() -> None:
    env = rank_env({}, layout("horovod"), 1, 2, "")
    assert (env["HOROVOD_CROSS_RANK"], env["HOROVOD_CROSS_SIZE"]) == ("0", "1")
    here = rank_env({}, layout("horovod", address="127.0.0.1", interface="lo0"), 0, 0, "")
    assert here["HOROVOD_GLOO_IFACE"] == "lo0"
