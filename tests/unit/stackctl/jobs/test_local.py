from __future__ import annotations

from stackctl.jobs import job as jobs
from stackctl.jobs import local


def test_one_launcher_a_node_that_meet_at_node_0() -> None:
    job = jobs.make(name="a", workload="gpt", nodes=2, procs=2)
    nodes = local.plan(job, python="/venv/bin/python", out="/run", port=29417)
    assert [node.env["STACK_NODE_RANK"] for node in nodes] == ["0", "1"]
    assert {node.env["STACK_RENDEZVOUS"] for node in nodes} == {"127.0.0.1:29417"}
    assert nodes[0].argv[:7] == ("/venv/bin/python", "-P", "-m", "stackrt.launch", "--grace", "60", "--")
    assert "STACK_TOKEN" not in nodes[0].env


def test_gpus_are_dealt_out_to_the_nodes() -> None:
    job = jobs.make(name="a", workload="gpt", nodes=2, gpus=2)
    nodes = local.plan(job, python="python", out="/run", port=1, gpus=["4", "5", "6", "7"])
    assert [node.env["CUDA_VISIBLE_DEVICES"] for node in nodes] == ["4,5", "6,7"]


def test_the_shown_plan_is_a_command_line_for_each_node() -> None:
    job = jobs.make(name="a", arguments=["python", "mine.py", "--text", "two words"], env={"X": "a b"})
    shown = local.show(local.plan(job, python="python", out="/run", port=1))
    assert "# node 0\n" in shown
    assert "X='a b'" in shown
    assert "python -P -m stackrt.launch --grace 60 -- python mine.py --text 'two words'" in shown
