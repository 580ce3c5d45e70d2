from __future__ import annotations

from typing import Any

import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs import job as jobs
from stackctl.jobs import workloads


def test_a_workload_brings_its_command_image_and_framework() -> None:
    job = jobs.make(name="a", workload="gpt", arguments=["--steps", "5"], nodes=2, procs=2, seed=7)
    assert job.command == ("python", "-P", "-m", "stackrt.train.gpt", "--seed", "7", "--steps", "5")
    assert (job.image, job.framework, job.device, job.world_size) == ("pytorch", "torch", "cpu", 4)


def test_an_own_command_stays_as_it_is() -> None:
    job = jobs.make(name="a", arguments=["python", "mine.py", "--seed", "3"], seed=7)
    assert job.command == ("python", "mine.py", "--seed", "3")
    assert job.env == {"SEED": "7"}
    assert job.device == "auto"


def test_gpus_give_each_rank_one() -> None:
    job = jobs.make(name="a", workload="gpt", nodes=2, gpus=8)
    assert (job.procs, job.device, job.world_size) == (8, "cuda", 16)


@pytest.mark.parametrize("given", [{"workload": "keras"}, {"workload": "gpt", "procs": 1}])
def test_one_rank_may_have_all_gpus_of_its_node(given: dict[str, Any]) -> None:
    job = jobs.make(name="a", gpus=8, **given)
    assert (job.gpus, job.procs, job.world_size, job.all_gpus) == (8, 1, 1, True)
    assert jobs.contract(job, 0, rendezvous="", out="/out")["STACK_ALL_GPUS"] == "1"


def test_a_workload_of_one_process_takes_what_gpus_there_are() -> None:
    job = jobs.make(name="a", workload="keras")
    assert (job.procs, job.device, job.all_gpus) == (1, "auto", True)
    assert not jobs.make(name="a", workload="gpt").all_gpus


def test_gpus_may_be_held_by_ranks_on_the_cpu() -> None:
    job = jobs.make(name="a", workload="gpt", gpus=8, device="cpu")
    assert (job.gpus, job.procs, job.device) == (8, 8, "cpu")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nodes": 0}, "--nodes 0: must be from 1 to 65,536"),
        ({"nodes": -2}, "--nodes -2: must be from 1"),
        ({"nodes": 10**8}, "--nodes 100000000: must be from 1"),
        ({"procs": 0}, "--procs 0: must be from 1 to 1,024"),
        ({"gpus": -1}, "--gpus -1: must be from 0"),
        ({"seed": -1}, "--seed -1: must be from 0"),
        ({"seed": 2**32}, "--seed 4294967296: must be from 0"),
        ({"grace": -1}, "--grace -1: must be from 0"),
        ({"gpus": 4, "procs": 2}, "4 GPUs and 2 ranks"),
        ({"workload": "keras", "nodes": 2}, "--nodes 2: keras is one process"),
        ({"workload": "keras", "procs": 2}, "--procs 2: keras is one process"),
        ({"timeout": 0}, "--timeout 0: must be from 1"),
        ({"workload": "gtp"}, "did you mean 'gpt'"),
        ({"workload": "", "arguments": []}, "nothing to run"),
        ({"name": "Has Spaces"}, "--name Has Spaces"),
        ({"name": "-dash"}, "--name -dash"),
        ({"name": "a" * 51}, "50 at most"),
        ({"env": {"1X": "y"}}, "--env 1X: is not a name"),
        ({"env": {"STACK_TOKEN": "y"}}, "the launcher's own"),
        ({"env": {"X": "a\0b"}}, "zero byte"),
        ({"workload": "", "arguments": ["python", "a\0b"]}, r"'a\x00b': a word of a command cannot hold a zero byte"),
    ],
)
def test_bad_input_is_one_clear_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        jobs.make(**{"name": "a", "workload": "gpt", **given})
    assert said in str(error.value)


def test_the_contract_of_a_node_has_every_variable_but_the_token() -> None:
    job = jobs.make(name="a", workload="gpt", nodes=2, procs=4, env={"X": "y"})
    assert jobs.contract(job, 1, rendezvous="node-0:29400", out="/out", attempt=3) == {
        "STACK_RUN": "a",
        "STACK_ATTEMPT": "3",
        "STACK_NODES": "2",
        "STACK_NODE_RANK": "1",
        "STACK_PROCS": "4",
        "STACK_DEVICE": "cpu",
        "STACK_RENDEZVOUS": "node-0:29400",
        "STACK_FRAMEWORK": "torch",
        "STACK_OUT": "/out",
        "STACK_TIMEOUT": "300",
        "X": "y",
    }


def test_every_workload_names_an_image_of_the_catalog() -> None:
    from stackctl.images import catalog

    rows = catalog.load()
    for workload in workloads.load().values():
        assert workload.image in rows.images


def test_a_workload_knows_what_its_ranks_expect_and_a_command_is_told() -> None:
    assert jobs.make(name="x", workload="horovod-tf", framework="torch").framework == "horovod"
    assert jobs.make(name="x", arguments=["true"], image="tensorflow", framework="tensorflow").framework == "tensorflow"
    assert jobs.make(name="x", arguments=["true"]).framework == "torch"
