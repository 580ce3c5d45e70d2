import pytest

from stackrt.launch.layout import Layout, NodeLayout
from stackrt.launch.rank_env import layout_names, rank_env

NODES = (NodeLayout(1, "10.0.0.1", (5001,)), NodeLayout(3, "10.0.0.2", (6001, 6002, 6003), 2))


def layout(framework: str = "torch", device: str = "cpu", address: str = "node-0", interface: str = "") -> Layout:
    return Layout("run", 2, framework, device, address, 4000, NODES, interface=interface)


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


def test_the_layout_is_the_launchers_and_what_a_user_may_say_is_not_of_it() -> None:
    names = layout_names()
    assert {"RANK", "MASTER_ADDR", "TF_CONFIG", "HOROVOD_RANK"} <= names
    assert not names & {"TORCHELASTIC_USE_AGENT_STORE", "HOROVOD_GLOO_TIMEOUT_SECONDS", "OMP_NUM_THREADS"}
