"""Trainers of pictures on a cluster: ranks on two nodes end with the weights of one plain process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter
from tests.support.plain_process import KERAS_STEPS, STEPS, apart, keras_apart

# An image that is not in the cache compiles Horovod first.
pytestmark = [pytest.mark.needs("cluster", "docker"), pytest.mark.timeout(1800)]

TWO_BY_TWO = ("--nodes", "2", "--procs", "2")
IMAGES = {"cnn": "tensorflow", "horovod-torch": "horovod-pytorch", "horovod-tf": "horovod-tensorflow"}


def test_ranks_on_two_nodes_train_as_one_plain_process(
    own_cluster: OwnCluster, submitter: Submitter, shared_claim: Path, built: Callable[[str], str]
) -> None:
    """`keras` is one process always: it has two devices on one node."""
    images = {workload: built(name) for workload, name in IMAGES.items()}
    images["keras"] = images["cnn"]
    for image in dict.fromkeys(images.values()):
        own_cluster.load_image(image)
    for workload, image in images.items():
        where = () if workload == "keras" else TWO_BY_TWO
        steps = ("--devices", "2", *KERAS_STEPS) if workload == "keras" else STEPS
        person = replace(submitter, image=image)
        person.submit(workload, workload, *where, "--volume", "shared", "--", *steps)
    for workload, image in images.items():
        submitter.wait_for(workload, "succeeded", 600)
        out = shared_claim / workload
        result = json.loads((out / "result.json").read_text())
        ranks = {"world_size": 1, "devices": 2} if workload == "keras" else {"world_size": 4}
        assert {name: result[name] for name in ranks} == ranks
        assert result["steps"] == 30
        if workload != "keras":
            assert len({node.host for node in submitter.status(workload).nodes}) == 2
            assert apart(image, out, workload) <= 1e-5, workload
            continue
        found = keras_apart(image, out)
        assert found.pop("weights") <= 1e-5
        assert max(found.values()) <= 1e-6, found
