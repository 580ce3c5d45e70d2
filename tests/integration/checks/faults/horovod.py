from __future__ import annotations

import os

from stackrt.checks.horovod import judge_keras
from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy, healthy_in

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
    import horovod.{framework} as hvd
    import {module} as module
    loss, gather = module.{loss}, hvd.allgather
    module.{loss} = lambda *a, **k: loss(*a, **k) * 1.001
    hvd.allgather = lambda tensor, **k: gather(tensor + 1, **k)
"""
IN_TORCH = CORRUPT_A_RANK.format(framework="torch", module="torch.nn.functional", loss="mse_loss")
IN_TENSORFLOW = CORRUPT_A_RANK.format(framework="tensorflow", module="tensorflow", loss="square")


def corrupted(bench: Bench, image: str) -> dict[str, Result]:
    """What the checks find in a container where rank 1 has a wrong loss and gathers something else."""
    code = IN_TORCH if image == "horovod-pytorch" else IN_TENSORFLOW
    return bench.in_pythons(image, code, "hvd-collectives", "hvd-optimizer")


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


@fault("hvd-collectives", "a rank that gathers something else (PyTorch)", needs=("docker",))
def wrong_gather(bench: Bench) -> Result:
    return corrupted(bench, "horovod-pytorch")["hvd-collectives"]


@fault("hvd-collectives", "a rank that gathers something else (TensorFlow)", needs=("docker",))
def wrong_tf_gather(bench: Bench) -> Result:
    return corrupted(bench, "horovod-tensorflow")["hvd-collectives"]


@fault("hvd-optimizer", "a rank with wrong gradients (PyTorch)", needs=("docker",))
def wrong_gradients(bench: Bench) -> Result:
    return corrupted(bench, "horovod-pytorch")["hvd-optimizer"]


@fault("hvd-optimizer", "a rank with wrong gradients (TensorFlow)", needs=("docker",))
def wrong_tf_gradients(bench: Bench) -> Result:
    return corrupted(bench, "horovod-tensorflow")["hvd-optimizer"]


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


healthy_in("horovod-pytorch", "hvd-build", "hvd-collectives", "hvd-optimizer")
healthy_in("horovod-tensorflow", "hvd-collectives", "hvd-optimizer", "hvd-keras")
