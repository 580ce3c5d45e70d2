from __future__ import annotations

from stackrt.launch.layout import Layout, NodeLayout
from stackrt.launch.rank_env import rank_env
from stackrt.train.tf_config import Place, place


def test_alone() -> None:
    assert place({}) == Place(0, 0)
    assert place({"TF_CONFIG": ""}) == Place(0, 0)


def test_every_rank_of_the_launcher_finds_its_place() -> None:
    nodes = (NodeLayout(1, "10.0.0.1", (5001,)), NodeLayout(3, "10.0.0.2", (6001, 6002, 6003)))
    layout = Layout("run", 1, "tensorflow", "cuda", "fd00::1", 4000, nodes)
    ranks = [(0, 0), (1, 0), (1, 1), (1, 2)]
    found = [place(rank_env({}, layout, node, local_rank, "")) for node, local_rank in ranks]
    assert found == [Place(0, 0), Place(1, 0), Place(2, 1), Place(3, 2)]
