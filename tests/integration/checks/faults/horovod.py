from __future__ import annotations

import os

from stackrt.checks.horovod import Fit, judge_keras
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
IN_TENSORFLOW = (
    CORRUPT_A_RANK.format(framework="tensorflow", module="tensorflow", loss="square")
    + """
    broadcast = hvd.broadcast_variables
    def wrongly(variables, *a, **k):
        variables = list(variables)
        broadcast(variables, *a, **k)
        variables[0].assign(variables[0] + 1)
    hvd.broadcast_variables = wrongly
"""
)


def corrupted(bench: Bench, image: str) -> dict[str, Result]:
    """What the checks find in a container where rank 1 has a wrong loss, and gathers and is sent something else."""
    if image == "horovod-pytorch":
        return bench.in_pythons(image, IN_TORCH, "hvd-collectives", "hvd-optimizer")
    return bench.in_pythons(image, IN_TENSORFLOW, "hvd-collectives", "hvd-optimizer", "hvd-keras")


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


@fault("hvd-keras", "a rank whose callback broadcasts something else", needs=("docker",))
def wrong_broadcast(bench: Bench) -> Result:
    return corrupted(bench, "horovod-tensorflow")["hvd-keras"]


METRIC, WARMUP = "MetricAverageCallback", "LearningRateWarmupCallback"
FIT: Fit = {"problem": "", "sha256": "a", "loss": [2.0, 1.0], "rates": [0.75, 1.0]}


def fitted(second: Fit, callback: str = WARMUP) -> Result:
    """What the check finds when the second rank's fit under Keras 3 ends so."""
    return judge_keras({"tf-keras": [{callback: FIT}] * 2, "Keras 3": [{callback: FIT}, {callback: second}]})


@fault("hvd-keras", "a callback that its Keras does not know")
def fails(bench: Bench) -> Result:
    return fitted({**FIT, "problem": "AttributeError: module 'keras.backend' has no attribute 'constant'"})


@fault("hvd-keras", "a rank with a loss of its own")
def own_loss(bench: Bench) -> Result:
    return fitted({**FIT, "loss": [3.0, 1.0]}, METRIC)


@fault("hvd-keras", "a learning rate that is not warmed up")
def cold(bench: Bench) -> Result:
    return fitted({**FIT, "rates": [1.0, 1.0]})


@healthy("hvd-keras")
def fits(bench: Bench) -> Result:
    return fitted(FIT)


healthy_in("horovod-pytorch", "hvd-build", "hvd-collectives", "hvd-optimizer")
healthy_in("horovod-tensorflow", "hvd-collectives", "hvd-optimizer", "hvd-keras")
