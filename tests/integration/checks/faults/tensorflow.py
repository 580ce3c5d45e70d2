from __future__ import annotations

import math

from stackrt.checks.pytorch_gpu import judge_losses
from stackrt.checks.result import Result
from stackrt.checks.tensorflow import judge_workers
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy

CORRUPT_A_WORKER = """
import json, os
if json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {}).get("index") == 1:
    import tensorflow as tf
    plain = tf.square
    tf.square = lambda *a, **k: plain(*a, **k) * 1.001
"""
LOSE_A_BIT = """
import sys
if "-P" in sys.orig_argv:
    import tensorflow as tf
    plain = tf.train.Checkpoint.read
    def read(self, path, options=None):
        status = plain(self, path, options)
        self.model.variables[0].assign_add(tf.fill(self.model.variables[0].shape, 1e-7))
        return status
    tf.train.Checkpoint.read = read
"""


@fault("tf-multiworker", "a worker that computes wrongly", needs=("docker",))
def corrupted(bench: Bench) -> Result:
    return bench.in_pythons("tensorflow", CORRUPT_A_WORKER, "tf-multiworker")


@fault("tf-multiworker", "workers that end with different weights")
def apart(bench: Bench) -> Result:
    return judge_workers([{"sha256": "a", "error": 1e-7}, {"sha256": "b", "error": 1e-7}])


@healthy("tf-multiworker", needs=("docker",))
def equal_workers(bench: Bench) -> Result:
    return bench.report("tensorflow")["tf-multiworker"]


@fault("tf-checkpoint", "a weight that comes back changed", needs=("docker",))
def changed(bench: Bench) -> Result:
    return bench.in_pythons("tensorflow", LOSE_A_BIT, "tf-checkpoint")


@healthy("tf-checkpoint", needs=("docker",))
def comes_back(bench: Bench) -> Result:
    return bench.report("tensorflow")["tf-checkpoint"]


@healthy("keras-conv")
def learns(bench: Bench) -> Result:
    return judge_losses([2.7, 0.8, 0.01])


@fault("keras-conv", "a NaN loss")
def diverges(bench: Bench) -> Result:
    return judge_losses([2.7, math.inf, math.nan])


@fault("keras-conv", "a loss that does not fall")
def learns_nothing(bench: Bench) -> Result:
    return judge_losses([2.7, 2.7])
