from __future__ import annotations

import os

from stackrt.checks.horovod import judge_keras
from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy

SHOWN = """Horovod v0.28.1:

Available Frameworks:
    [ ] TensorFlow
    [X] PyTorch
    [ ] MXNet

Available Controllers:
    [ ] MPI
    [X] Gloo

Available Tensor Operations:
    [{}] NCCL
    [ ] DDL
    [ ] CCL
    [ ] MPI
    [X] Gloo
"""
CORRUPT_A_RANK = """
import os
if os.environ.get("HOROVOD_RANK") == "1":
    import torch.nn.functional as F
    plain = F.mse_loss
    F.mse_loss = lambda *a, **k: plain(*a, **k) * 1.001
"""
CORRUPT_A_TAPE = """
import os
if os.environ.get("HOROVOD_RANK") == "1":
    import tensorflow as tf
    plain = tf.square
    tf.square = lambda *a, **k: plain(*a, **k) * 1.001
"""
CORRUPT_A_GATHER = """
import os
if os.environ.get("HOROVOD_RANK") == "1":
    import horovod.{0} as hvd
    plain = hvd.allgather
    hvd.allgather = lambda tensor, **k: plain(tensor + 1, **k)
"""


def build(bench: Bench, nccl: str, cuda: str) -> Result:
    """What the check finds where `horovodrun` shows what is given."""
    program = bench.tmp / "horovodrun"
    program.write_text(f"print({SHOWN.format(nccl)!r})\n")
    program.chmod(0o755)
    context = bench.context(bench.facts(horovod=True, cuda=cuda))
    return bench.run("hvd-build", context, env={"PATH": f"{bench.tmp}:{os.environ['PATH']}"})


@fault("hvd-build", "a CUDA image whose Horovod has no NCCL")
def without_nccl(bench: Bench) -> Result:
    return build(bench, " ", "13.0")


@fault("hvd-build", "a CPU image whose Horovod has NCCL")
def with_nccl(bench: Bench) -> Result:
    return build(bench, "X", "")


@healthy("hvd-build")
def as_declared(bench: Bench) -> Result:
    return build(bench, "X", "13.0")


@healthy("hvd-build", needs=("docker",))
def as_built(bench: Bench) -> Result:
    return bench.report("horovod-pytorch")["hvd-build"]


@fault("hvd-collectives", "a rank that gathers something else (PyTorch)", needs=("docker",))
def wrong_gather(bench: Bench) -> Result:
    return bench.in_pythons("horovod-pytorch", CORRUPT_A_GATHER.format("torch"), "hvd-collectives")


@fault("hvd-collectives", "a rank that gathers something else (TensorFlow)", needs=("docker",))
def wrong_tf_gather(bench: Bench) -> Result:
    return bench.in_pythons("horovod-tensorflow", CORRUPT_A_GATHER.format("tensorflow"), "hvd-collectives")


@healthy("hvd-collectives", needs=("docker",))
def exact(bench: Bench) -> Result:
    return bench.report("horovod-pytorch")["hvd-collectives"]


@healthy("hvd-collectives", needs=("docker",))
def exact_tf(bench: Bench) -> Result:
    return bench.report("horovod-tensorflow")["hvd-collectives"]


@fault("hvd-optimizer", "a rank with wrong gradients (PyTorch)", needs=("docker",))
def wrong_gradients(bench: Bench) -> Result:
    return bench.in_pythons("horovod-pytorch", CORRUPT_A_RANK, "hvd-optimizer")


@fault("hvd-optimizer", "a rank with wrong gradients (TensorFlow)", needs=("docker",))
def wrong_tf_gradients(bench: Bench) -> Result:
    return bench.in_pythons("horovod-tensorflow", CORRUPT_A_TAPE, "hvd-optimizer")


@healthy("hvd-optimizer", needs=("docker",))
def equal(bench: Bench) -> Result:
    return bench.report("horovod-pytorch")["hvd-optimizer"]


@healthy("hvd-optimizer", needs=("docker",))
def equal_tf(bench: Bench) -> Result:
    return bench.report("horovod-tensorflow")["hvd-optimizer"]


BROADCAST, METRIC = "BroadcastGlobalVariablesCallback", "MetricAverageCallback"
NO_CONSTANT = "AttributeError: module 'keras.backend' has no attribute 'constant'"
TF_KERAS = {BROADCAST: "", METRIC: NO_CONSTANT, "sha256": "a"}
KERAS_3 = {BROADCAST: "AttributeError: 'Variable' object has no attribute 'ref'", METRIC: NO_CONSTANT, "sha256": "a"}


@fault("hvd-keras", "it works where the documentation says that it does not")
def works(bench: Bench) -> Result:
    return judge_keras({"tf-keras": [TF_KERAS] * 2, "Keras 3": [{**KERAS_3, BROADCAST: ""}]})


@fault("hvd-keras", "another error than the known one")
def another_error(bench: Bench) -> Result:
    return judge_keras({"tf-keras": [{**TF_KERAS, METRIC: "ValueError: no such metric"}] * 2, "Keras 3": [KERAS_3]})


@fault("hvd-keras", "it fails where the documentation says that it works")
def fails(bench: Bench) -> Result:
    broken = {**TF_KERAS, BROADCAST: "ValueError: no such optimizer"}
    return judge_keras({"tf-keras": [broken] * 2, "Keras 3": [KERAS_3]})


@fault("hvd-keras", "ranks that fit to different weights")
def apart(bench: Bench) -> Result:
    return judge_keras({"tf-keras": [TF_KERAS, {**TF_KERAS, "sha256": "b"}], "Keras 3": [KERAS_3]})


@healthy("hvd-keras")
def as_is_known(bench: Bench) -> Result:
    return judge_keras({"tf-keras": [TF_KERAS] * 2, "Keras 3": [KERAS_3]})


@healthy("hvd-keras", needs=("docker",))
def keras_as_built(bench: Bench) -> Result:
    return bench.report("horovod-tensorflow")["hvd-keras"]
