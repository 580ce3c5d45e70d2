"""Jobs that end well."""

import json
import socket
import sys
from pathlib import Path

import pytest

from tests.support.launchers import Job
from tests.support.waiting import until

pytestmark = pytest.mark.needs("linux")  # the drills find processes through /proc

PRINT_ENV = (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")


def env_of(job: Job, rank: int) -> dict[str, str]:
    return dict(json.loads(job.log(rank)))


def test_two_nodes_get_torchrun_variables(job: Job) -> None:
    nodes = job.pair(*PRINT_ENV, OMP_NUM_THREADS="")
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].err + nodes[1].err
    port = env_of(job, 0)["MASTER_PORT"]
    for rank in range(4):
        env = env_of(job, rank)
        expected = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % 2),
            "WORLD_SIZE": "4",
            "LOCAL_WORLD_SIZE": "2",
            "GROUP_RANK": str(rank // 2),
            "GROUP_WORLD_SIZE": "2",
            "ROLE_NAME": "default",
            "ROLE_RANK": str(rank),
            "ROLE_WORLD_SIZE": "4",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "TORCHELASTIC_RUN_ID": job.run,
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_MAX_RESTARTS": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "STACK_DEVICE": "cpu",
            "STACK_ATTEMPT": "1",
        }
        assert env | expected == env
        assert "STACK_TOKEN" not in env
        assert f"[{rank}] " in nodes[rank // 2].out
    assert not (job.out / "failure.json").exists()
    job.gone()


def test_one_node_needs_no_configuration(job: Job) -> None:
    node = job.node(0, *PRINT_ENV, nodes=1, STACK_NODES="", STACK_NODE_RANK="", STACK_PROCS="", STACK_DEVICE="",
                    STACK_RENDEZVOUS="", STACK_TOKEN="", STACK_TIMEOUT="")  # fmt: skip
    assert node.wait() == 0
    env = env_of(job, 0)
    assert (env["WORLD_SIZE"], env["MASTER_ADDR"], env["STACK_DEVICE"]) == ("1", "127.0.0.1", "cpu")
    assert node.err.count("\n") == 1
    assert "STACK_DEVICE=auto means cpu" in node.err


def test_nodes_may_have_different_numbers_of_ranks(job: Job) -> None:
    nodes = job.node(0, *PRINT_ENV, procs=1), job.node(1, *PRINT_ENV, procs=3)
    assert [node.wait() for node in nodes] == [0, 0]
    seen = [(env_of(job, rank)["LOCAL_RANK"], env_of(job, rank)["LOCAL_WORLD_SIZE"]) for rank in range(4)]
    assert seen == [("0", "1"), ("0", "3"), ("1", "3"), ("2", "3")]


def test_the_highest_attempt_of_all_nodes_is_in_force(job: Job) -> None:
    (job.out).mkdir()
    (job.out / "failure.json").write_text("{}")
    nodes = job.node(0, *PRINT_ENV, STACK_ATTEMPT="2"), job.node(1, *PRINT_ENV, STACK_ATTEMPT="3")
    assert [node.wait() for node in nodes] == [0, 0]
    assert json.loads(job.log(0, attempt=3))["TORCHELASTIC_RESTART_COUNT"] == "2"
    assert not (job.out / "failure.json").exists(), "an earlier attempt's failure is stale"


def test_tensorflow_ranks_can_all_listen_on_their_ports(job: Job) -> None:
    script = """
import json, os, socket
config = json.loads(os.environ["TF_CONFIG"])
host, port = config["cluster"]["worker"][config["task"]["index"]].split(":")
server = socket.create_server((host, int(port)))
print(json.dumps(config))
"""
    nodes = job.pair(sys.executable, "-c", script, STACK_FRAMEWORK="tensorflow")
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].out
    configs = [json.loads(job.log(rank)) for rank in range(4)]
    assert [config["task"]["index"] for config in configs] == [0, 1, 2, 3]
    assert len(set(configs[0]["cluster"]["worker"])) == 4
    assert all(config["cluster"] == configs[0]["cluster"] for config in configs)


ALL_REDUCE = """
import torch, torch.distributed as dist

dist.init_process_group("gloo")
value = torch.ones(1) * (dist.get_rank() + 1)
dist.all_reduce(value)
print("sum", value.item(), flush=True)
dist.destroy_process_group()
"""


@pytest.mark.needs("torch")
@pytest.mark.parametrize("store", ["0", "1"])
def test_an_unmodified_torch_distributed_script_runs(job: Job, store: str) -> None:
    nodes = job.pair(sys.executable, "-c", ALL_REDUCE, USE_LIBUV=store)
    assert [node.wait(90) for node in nodes] == [0, 0], nodes[0].out + nodes[1].out
    assert all("sum 10.0" in job.log(rank) for rank in range(4))


def test_procs_auto_is_one_rank_where_there_is_no_gpu(job: Job) -> None:
    node = job.node(0, *PRINT_ENV, nodes=1, STACK_PROCS="auto", STACK_DEVICE="auto", CUDA_VISIBLE_DEVICES="")
    assert node.wait() == 0, node.err
    assert (env_of(job, 0)["WORLD_SIZE"], env_of(job, 0)["STACK_PROCS"]) == ("1", "1")
    refused = job.node(0, "true", nodes=1, STACK_PROCS="auto", STACK_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert refused.wait() == 78
    assert "0 visible GPUs" in refused.err


def test_ipv6_and_names_work(job: Job) -> None:
    nodes = job.pair("true", STACK_RENDEZVOUS=f"localhost:{job.port}")
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].err
    try:
        nodes = job.pair("true", STACK_RENDEZVOUS=f"[::1]:{job.port}")
        assert [node.wait() for node in nodes] == [0, 0]
    except AssertionError:
        if "can't be opened" not in nodes[0].err:
            raise
        pytest.skip("this machine has no IPv6 loopback")


def test_help_and_usage(job: Job) -> None:
    node = job.node(0, options=("--help",))
    assert node.wait() == 0
    assert "usage: python -m stackrt.launch" in node.out


def outward() -> tuple[str, str]:
    """Name and address of the interface that leads out of this machine."""
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()]
    names = [row[0] for row in routes if row[1] == "00000000"]
    if not names:
        pytest.skip("this machine has no route to anywhere")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("203.0.113.7", 9))  # of a datagram socket: nothing is sent
        return names[0], str(asked.getsockname()[0])


@pytest.mark.needs("linux")
@pytest.mark.parametrize("where", ["here", "out"])
def test_gloo_gets_the_interface_that_leads_to_node_0(job: Job, where: str) -> None:
    """By the connection between the launchers: the host's own name may lead elsewhere, or nowhere."""
    name, address = ("lo", "127.0.0.1") if where == "here" else outward()
    script = "import os; print(os.environ['GLOO_SOCKET_IFNAME'], os.environ.get('NCCL_SOCKET_IFNAME'))"
    place = f"{address}:{job.port}"
    nodes = job.pair(sys.executable, "-c", script, STACK_RENDEZVOUS=place)
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].err
    assert [job.log(rank) for rank in range(4)] == [f"{name} None\n"] * 4


@pytest.mark.parametrize(("uses", "kept"), [("IB", True), ("Socket", False)])
def test_the_network_that_nccl_takes_is_told(job: Job, uses: str, kept: bool) -> None:
    """By planted lines of NCCL: there is no GPU here."""
    says = f"print('h:1:1 [0] NCCL INFO Using network {uses}' if os.environ['RANK'] == '2' else 'up', flush=True)"
    nodes = job.pair(sys.executable, "-c", f"import os; {says}{job.READY}", STACK_FABRIC="rdma")
    until(lambda: f"NCCL uses {uses}" in nodes[1].err)
    job.go()
    assert [node.wait() for node in nodes] == [0, 0]
    assert ("promises rdma: it will be slow" in nodes[1].err) is not kept
    refused = job.node(0, "true", nodes=1, STACK_FABRIC="carrier-pigeon")
    assert refused.wait() == 78
    assert "STACK_FABRIC=carrier-pigeon" in refused.err
