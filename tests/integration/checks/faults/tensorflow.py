from __future__ import annotations

import math

from stackrt.checks.pytorch_gpu import judge_losses
from stackrt.checks.result import Result
from stackrt.checks.tensorflow import judge_workers
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy, healthy_in

CORRUPT = """
import json, os, sys
if json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {}).get("index") == 1:
    import tensorflow as tf
    plain = tf.square
    tf.square = lambda *a, **k: plain(*a, **k) * 1.001
elif "stackrt.checks" in sys.orig_argv:
    import tensorflow as tf
    plain = tf.train.Checkpoint.read
    def read(self, path, options=None):
        status = plain(self, path, options)
        self.model.variables[0].assign_add(tf.fill(self.model.variables[0].shape, 1e-7))
        return status
    tf.train.Checkpoint.read = read
"""


def spoilt(bench: Bench) -> dict[str, Result]:
    """What the checks find in a container where worker 1 has a wrong loss, and the suite itself a wrong checkpoint."""
    return bench.in_pythons("tensorflow", CORRUPT, "tf-multiworker", "tf-checkpoint")


@fault("tf-multiworker", "a worker that computes wrongly", needs=("docker",))
def corrupted(bench: Bench) -> Result:
    return spoilt(bench)["tf-multiworker"]


@fault("tf-multiworker", "workers that end with different weights")
def apart(bench: Bench) -> Result:
    return judge_workers([{"sha256": "a", "error": 1e-7}, {"sha256": "b", "error": 1e-7}])


@fault("tf-checkpoint", "a weight that comes back changed", needs=("docker",))
def changed(bench: Bench) -> Result:
    return spoilt(bench)["tf-checkpoint"]


@healthy("keras-conv")
def learns(bench: Bench) -> Result:
    return judge_losses([2.7, 0.8, 0.01])


@fault("keras-conv", "a NaN loss")
def diverges(bench: Bench) -> Result:
    return judge_losses([2.7, math.inf, math.nan])


@fault("keras-conv", "a loss that does not fall")
def learns_nothing(bench: Bench) -> Result:
    return judge_losses([2.7, 2.7])


healthy_in("tensorflow", "tf-multiworker", "tf-checkpoint")
