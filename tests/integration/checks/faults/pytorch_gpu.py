"""No GPU is needed here: faults are planted in what a GPU would have measured. What measures runs on a CPU in
tests/integration/checks/test_measuring.py, as far as it can; on a GPU it is run nowhere in this project's tests."""

from __future__ import annotations

import math

from stackrt.checks import pytorch_gpu as gpu
from stackrt.checks.pytorch import judge_training
from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy

ERRORS = {"fp32": 3e-7, "tf32": 4e-4, "bf16": 3e-3, "fp16": 4e-4}
MEMORY = {"reused": True, "out_of_memory": True, "works_after": True, "lost_bytes": 0, "total_bytes": 85e9}
AMP = {"fp16": ("torch.float16", "torch.float32", True), "bf16": ("torch.bfloat16", "torch.float32", True)}


@healthy("matmul-accuracy")
def accurate(bench: Bench) -> Result:
    return gpu.judge_matmul({"cuda:0": ERRORS, "cuda:1": ERRORS})


@fault("matmul-accuracy", "fp32 computed as tf32")
def coarse(bench: Bench) -> Result:
    return gpu.judge_matmul({"cuda:0": {**ERRORS, "fp32": 4e-4}})


@fault("matmul-accuracy", "one GPU of two gives NaN in bf16")
def not_a_number(bench: Bench) -> Result:
    result = gpu.judge_matmul({"cuda:0": ERRORS, "cuda:1": {**ERRORS, "bf16": math.nan}})
    assert "cuda:1 bf16" in result.found
    return result


@healthy("conv-train")
def learns(bench: Bench) -> Result:
    return gpu.judge_losses([2.3, 1.1, 0.4])


@fault("conv-train", "a NaN loss")
def diverges(bench: Bench) -> Result:
    return gpu.judge_losses([2.3, math.nan, math.nan])


@fault("conv-train", "a loss that does not fall")
def learns_nothing(bench: Bench) -> Result:
    return gpu.judge_losses([2.3, 2.3, 2.29])


@healthy("amp")
def mixed(bench: Bench) -> Result:
    return gpu.judge_amp(AMP)


@fault("amp", "autocast leaves the output in fp32")
def not_mixed(bench: Bench) -> Result:
    return gpu.judge_amp({**AMP, "bf16": ("torch.float32", "torch.float32", True)})


@fault("amp", "infinite gradients")
def infinite(bench: Bench) -> Result:
    return gpu.judge_amp({**AMP, "fp16": ("torch.float16", "torch.float32", False)})


@healthy("compile-gpu")
def compiled(bench: Bench) -> Result:
    return gpu.judge_compiled_gpu({"triton": 0.0, "compile": 1e-7}, 2)


@fault("compile-gpu", "the compiled function computes something else")
def compiled_wrongly(bench: Bench) -> Result:
    return gpu.judge_compiled_gpu({"triton": 0.0, "compile": 0.01}, 2)


@fault("compile-gpu", "nothing was compiled")
def not_compiled(bench: Bench) -> Result:
    return gpu.judge_compiled_gpu({"triton": 0.0, "compile": 0.0}, 0)


@fault("compile-gpu", "no Triton and no GPU to compile for", needs=("torch",))
def no_triton(bench: Bench) -> Result:
    return bench.run("compile-gpu", bench.context(gpus=1), loaded=("torch",))


@healthy("memory")
def recovers(bench: Bench) -> Result:
    return gpu.judge_memory(MEMORY)


@fault("memory", "memory that is freed does not come back")
def leaks(bench: Bench) -> Result:
    return gpu.judge_memory({**MEMORY, "lost_bytes": 2**30})


@fault("memory", "wrong results after running out of memory")
def broken_after(bench: Bench) -> Result:
    return gpu.judge_memory({**MEMORY, "works_after": False})


@healthy("profiler")
def profiled(bench: Bench) -> Result:
    return gpu.judge_profile({"sm90_xmma_gemm": 120.5})


@fault("profiler", "this user may not see the GPU's counters")
def not_allowed(bench: Bench) -> Result:
    return gpu.judge_profile({})


TRAINED = {"ddp_error": 2e-7, "fsdp_error": 3e-7, "shards_lost": 0.0}


@healthy("ddp-fsdp-hvd")
def together(bench: Bench) -> Result:
    return judge_training([{**TRAINED, "horovod_error": 2e-7}] * 2, gpu.MOST_GPU_TRAINING_ERROR)


@fault("ddp-fsdp-hvd", "one rank's gradients are NaN")
def rank_not_a_number(bench: Bench) -> Result:
    return judge_training([TRAINED, {**TRAINED, "ddp_error": math.nan}], gpu.MOST_GPU_TRAINING_ERROR)


@fault("ddp-fsdp-hvd", "a sharded checkpoint comes back changed")
def lost_shards(bench: Bench) -> Result:
    return judge_training([TRAINED, {**TRAINED, "shards_lost": 1.0}], gpu.MOST_GPU_TRAINING_ERROR)
