import json

import pytest

from stackrt.launch.cpus import USUAL_SPINS
from stackrt.launch.frameworks import Layout, NodeLayout, horovod_hosts, rank_env

NODES = (NodeLayout(1, "10.0.0.1", (5001,)), NodeLayout(3, "10.0.0.2", (6001, 6002, 6003), 2))


def layout(framework: str = "torch", device: str = "cpu", address: str = "node-0", interface: str = "") -> Layout:
    return Layout("run", 2, framework, device, address, 4000, NODES, interface=interface)


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


def test_the_token_does_not_pass_and_the_rest_does() -> None:
    env = rank_env({"STACK_TOKEN": "secret", "STACK_RUN": "run", "HOME": "/h"}, layout(), 0, 0, "")
    assert "STACK_TOKEN" not in env
    assert (env["STACK_RUN"], env["HOME"]) == ("run", "/h")


def test_tensorflow_gets_as_many_threads_as_openmp() -> None:
    assert rank_env({"OMP_NUM_THREADS": "7"}, layout("tensorflow"), 0, 0, "")["TF_NUM_INTRAOP_THREADS"] == "7"


def test_a_wait_policy_of_the_users_leaves_the_spinning_to_it() -> None:
    assert "GOMP_SPINCOUNT" not in rank_env({"OMP_WAIT_POLICY": "active"}, layout(), 0, 0, "")


def test_the_users_values_win() -> None:
    base = {"OMP_NUM_THREADS": "7", "NCCL_DEBUG": "INFO", "PYTHONUNBUFFERED": "", "TORCH_FR_BUFFER_SIZE": "9"}
    env = rank_env(base, layout(device="cuda"), 1, 0, "")
    assert env | base == env


def test_cuda_turns_on_nccl_warnings_and_the_flight_recorder() -> None:
    env = rank_env({}, layout(device="cuda"), 0, 0, "")
    assert env["NCCL_DEBUG"] == "WARN"
    assert env["TORCH_NCCL_TRACE_BUFFER_SIZE"] == env["TORCH_FR_BUFFER_SIZE"] == "2000"
    assert not {name for name in rank_env({}, layout(), 0, 0, "") if "NCCL" in name or "FR_" in name}


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


@pytest.mark.parametrize(
    ("device", "address", "nccl"),
    [("cuda", "node-0", "=ib0"), ("cpu", "node-0", None), ("cuda", "127.0.0.1", None)],
)
def test_the_interface_that_leads_to_node_0(device: str, address: str, nccl: str | None) -> None:
    env = rank_env({}, layout("torch", device, address, interface="ib0"), 0, 0, "")
    assert env["GLOO_SOCKET_IFNAME"] == "ib0"
    assert env.get("NCCL_SOCKET_IFNAME") == nccl
    own = {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth"}
    assert own.items() <= rank_env(own, layout("torch", device, address, interface="ib0"), 0, 0, "").items()
    assert "GLOO_SOCKET_IFNAME" not in rank_env({}, layout("torch", device, address), 0, 0, "")


@pytest.mark.parametrize(
    ("fabric", "device", "local_rank", "debug"),
    [("efa", "cuda", 0, "INFO"), ("efa", "cuda", 1, "WARN"), ("any", "cuda", 0, "WARN"), ("efa", "cpu", 0, None)],
)
def test_one_rank_of_a_node_tells_which_network_nccl_takes(
    fabric: str, device: str, local_rank: int, debug: str | None
) -> None:
    env = rank_env({}, layout("torch", device)._replace(fabric=fabric), 1, local_rank, "")
    assert env.get("NCCL_DEBUG") == debug
    assert env.get("NCCL_DEBUG_SUBSYS") == ("INIT,NET" if debug == "INFO" else None)
    own = rank_env({"NCCL_DEBUG": "TRACE"}, layout("torch", device)._replace(fabric=fabric), 1, local_rank, "")
    assert own["NCCL_DEBUG"] == "TRACE"
