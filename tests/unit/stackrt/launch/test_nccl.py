import pytest

from stackrt.launch import nccl
from stackrt.launch.nccl import Network, Watch

SOCKET = """\
node-0:7:7 [0] NCCL INFO Bootstrap: Using eth0:10.0.0.1<0>
node-0:7:7 [0] NCCL INFO NET/Plugin: Could not find: libnccl-net.so
node-0:7:7 [0] NCCL INFO NET/IB : No device found.
node-0:7:7 [0] NCCL INFO NET/Socket : Using [0]eth0:10.0.0.1<0> [1]eth1:10.1.0.1<0>
node-0:7:7 [0] NCCL INFO Using network Socket
"""
IB = """\
node-0:7:7 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/RoCE [RO]; OOB eth0:10.0.0.1<0>
node-0:7:7 [0] NCCL INFO Using network IB
"""
EFA = """\
node-0:7:7 [0] NCCL INFO NET/OFI Selected provider is efa, fabric is efa-direct (found 32 nics)
node-0:7:7 [0] NCCL INFO Using network AWS Libfabric
"""


@pytest.mark.parametrize(
    ("log", "network"),
    [
        (SOCKET, Network("Socket", ("eth0", "eth1"))),
        (IB, Network("IB", ("mlx5_0", "mlx5_1"))),
        (EFA, Network("AWS Libfabric", ())),
        ("step 1 loss 2.0\nUsing network of friends\n", None),
    ],
)
def test_which_network_nccl_takes(log: str, network: Network | None) -> None:
    watch = Watch()
    for line in log.encode().split(b"\n"):
        watch.line(line)
    assert watch.network == network


@pytest.mark.parametrize(
    ("name", "fabric", "kept"),
    [
        ("Socket", "any", True),
        ("Socket", "tcp", True),
        ("FastSocket", "tcp", True),
        ("Socket", "rdma", False),
        ("Socket", "efa", False),
        ("IB", "rdma", True),
        ("IB", "efa", False),
        ("AWS Libfabric", "efa", True),
        ("Libfabric", "efa", True),
        ("FasTrak", "tcpxo", True),
    ],
)
def test_whether_that_was_promised(name: str, fabric: str, kept: bool) -> None:
    assert nccl.is_promised(name, fabric) is kept
    said = nccl.sentence(Network(name, ("eth0",)), fabric)
    assert said.startswith(f"NCCL uses {name} on eth0")
    assert (f"promises {fabric}" in said) is not kept
