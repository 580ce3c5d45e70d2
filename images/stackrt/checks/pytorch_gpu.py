"""Does PyTorch compute rightly on GPUs? What a check measures is apart from how it is judged, and takes any device."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from stackrt.checks import ranks
from stackrt.checks.context import Context
from stackrt.checks.pytorch import NO_COMPILER, judge_training, ranks_failed
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped, warned

SUSPECT = "run gpu-health and burn; if they pass, compare with another GPU and another driver"

MOST_MATMUL_ERROR = {"fp32": 3e-6, "tf32": 2e-3, "bf16": 1e-2, "fp16": 2e-3}
"""Relative to the norm of the product of 1024 x 1024 normal numbers. Rounding the inputs makes about 3e-7 (fp32, from
the sums), 4e-4 (tf32 and fp16, 10 bits) and 3e-3 (bf16, 7 bits)."""

MOST_GPU_TRAINING_ERROR = 1e-5
"""Of gradients and weights; kernels for other batch sizes add up in another order."""

FALL = 0.9
"""What a network's loss on one batch falls to, at least, as a part of the first."""

LEAK_BYTES = 64 * 2**20
"""Libraries keep some memory for good, such as the workspace of cuBLAS."""


@check(
    "matmul-accuracy",
    needs=("gpu",),
    tags=("cuda",),
    frameworks=("torch",),
    timeout=120.0,
    proves="tensor cores compute rightly in every precision that training uses",
    criterion="matrix products of each GPU differ from fp64 by no more than rounding",
)
def matmul_accuracy(context: Context) -> Result:
    """Multiply in each precision on every GPU."""
    return judge_matmul({f"cuda:{index}": matmul_errors(f"cuda:{index}") for index in range(context.gpus)})


def matmul_errors(device: str, size: int = 1024) -> dict[str, float]:
    """Each precision's error, relative to the norm of the product in fp64."""
    import torch

    torch.manual_seed(0)
    a, b = torch.randn(2, size, size, dtype=torch.float64).to(device)
    wanted = a @ b
    errors = {}
    for name, dtype in (("fp32", "float32"), ("tf32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")):
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        kind = getattr(torch, dtype)
        found = (a.to(kind) @ b.to(kind)).double()
        errors[name] = float((found - wanted).norm() / wanted.norm())
    return errors


def judge_matmul(errors: Mapping[str, Mapping[str, float]]) -> Result:
    """Judge the errors of each device and precision."""
    wrong = [
        f"{device} {name}: {value:.1e}"
        for device, values in errors.items()
        for name, value in values.items()
        if not value <= MOST_MATMUL_ERROR[name]
    ]
    expected = ", ".join(f"{name} {most:g}" for name, most in MOST_MATMUL_ERROR.items())
    if wrong:
        return failed("; ".join(wrong), expected=f"errors of at most {expected}", todo=SUSPECT, errors=errors)
    worst = {name: max(values[name] for values in errors.values()) for name in MOST_MATMUL_ERROR}
    return passed(", ".join(f"{name} {value:.0e}" for name, value in worst.items()), errors=errors)


@check(
    "conv-train",
    needs=("gpu",),
    tags=("cuda",),
    frameworks=("torch",),
    timeout=120.0,
    proves="cuDNN trains a convolutional network",
    criterion=f"every loss is finite, and the last is below {FALL:g} of the first",
)
def conv_train(_context: Context) -> Result:
    """Train a small network on one batch."""
    return judge_losses(conv_losses("cuda"))


def conv_losses(device: str, steps: int = 20) -> list[float]:
    """The losses of a network with two convolutions that learns one batch by heart."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 10),
    ).to(device)  # fmt: skip
    pictures, labels = torch.randn(64, 3, 16, 16).to(device), torch.randint(10, (64,)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pictures), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def judge_losses(losses: Sequence[float]) -> Result:
    """Judge the losses of training on one batch."""
    figures = {"first_loss": losses[0], "last_loss": losses[-1]}
    if not all(math.isfinite(loss) for loss in losses):
        step = next(step for step, loss in enumerate(losses) if not math.isfinite(loss))
        return failed(f"the loss of step {step} is {losses[step]}", expected="finite losses", todo=SUSPECT)
    if not losses[-1] < FALL * losses[0]:
        return failed(
            f"the loss went from {losses[0]:.3g} to {losses[-1]:.3g}",
            expected="a falling loss",
            todo=SUSPECT,
            **figures,
        )
    return passed(f"the loss falls from {losses[0]:.3g} to {losses[-1]:.3g} in {len(losses)} steps", **figures)


@check(
    "amp",
    needs=("gpu",),
    tags=("cuda",),
    frameworks=("torch",),
    timeout=120.0,
    proves="mixed precision trains: low precision where it helps, fp32 where it must be",
    criterion="autocast computes in fp16 and bf16, gradients are fp32 and finite",
)
def amp(_context: Context) -> Result:
    """Take a step under autocast in both precisions."""
    return judge_amp(amp_types("cuda"))


def amp_types(device: str) -> dict[str, tuple[str, str, bool]]:
    """For each precision: the type of the output, that of the gradients, and whether these are finite."""
    import torch

    found = {}
    for name, kind in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        torch.manual_seed(0)
        model = torch.nn.Linear(256, 256).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler(device, enabled=name == "fp16")
        with torch.autocast(device, dtype=kind):
            output = model(torch.randn(64, 256).to(device))
            loss = output.float().square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
        found[name] = (str(output.dtype), str(gradients[0].dtype), finite)
    return found


def judge_amp(found: Mapping[str, tuple[str, str, bool]]) -> Result:
    """Judge what `amp_types` found."""
    wanted = {"fp16": "torch.float16", "bf16": "torch.bfloat16"}
    wrong = [
        f"{name}: output {output}, gradients {gradient}" + ("" if finite else " and not finite")
        for name, (output, gradient, finite) in found.items()
        if (output, gradient, finite) != (wanted[name], "torch.float32", True)
    ]
    if wrong:
        return failed("; ".join(wrong), expected="outputs in low precision, finite fp32 gradients", todo=SUSPECT)
    return passed("fp16 and bf16 outputs, finite fp32 gradients")


@check(
    "compile-gpu",
    needs=("gpu",),
    tags=("cuda", "compiler"),
    frameworks=("torch",),
    timeout=180.0,
    proves="torch.compile and Triton make GPU code that runs here",
    criterion="a Triton kernel and a compiled function give the plain results, with machine code made just now",
)
def compile_gpu(context: Context) -> Result:
    """Run a Triton kernel and a compiled function in empty caches."""
    if context.image and not context.image.compiler:
        return skipped(NO_COMPILER)
    made = context.scratch / "compiled"
    os.environ |= {
        "TRITON_CACHE_DIR": str(made / "triton"), "TORCHINDUCTOR_CACHE_DIR": str(made / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }  # fmt: skip
    try:
        return judge_compiled_gpu(compiled_differences(), len(list(made.rglob("*.cubin"))))
    except Exception as error:
        return failed(
            f"no GPU code was made: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}",
            expected="GPU code that runs", todo="see the last lines; a C compiler (cc) and Python.h must be there",
        )  # fmt: skip


def compiled_differences() -> dict[str, float]:
    """How far generated code is from the plain one, relative to the largest value."""
    import torch

    from stackrt.checks.triton_kernel import BLOCK, double_and_add

    x, y = torch.randn(2, 10_000, device="cuda")
    found = torch.empty_like(x)
    double_and_add[(math.ceil(x.numel() / BLOCK),)](x, y, found, x.numel(), size=BLOCK)

    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x) * y.sigmoid()

    compiled = torch.compile(function, fullgraph=True)(x, y)
    pairs = {"triton": (found, 2 * x + y), "compile": (compiled, function(x, y))}
    return {name: float((one - other).abs().max() / other.abs().max()) for name, (one, other) in pairs.items()}


def judge_compiled_gpu(differences: Mapping[str, float], cubins: int) -> Result:
    """Judge how far generated code is from the plain one, and how many machine codes were made for it."""
    wrong = [f"{name} differs by {value:.1e}" for name, value in differences.items() if not value <= 1e-5]
    if wrong or cubins < len(differences):
        found = "; ".join(wrong) or f"only {cubins} machine codes were made"
        return failed(found, expected="the plain results, from code made just now", todo=SUSPECT, **differences)
    return passed(f"generated code gives the plain results ({cubins} machine codes made)", **differences)


@check(
    "memory",
    needs=("gpu",),
    tags=("cuda",),
    frameworks=("torch",),
    timeout=120.0,
    proves="GPU memory is released and used again, and a program survives running out of it",
    criterion="a freed block is given out again, an oversized request fails, then all works and nothing is lost",
)
def memory(_context: Context) -> Result:
    """Fill, free, run out, and go on."""
    return judge_memory(memory_figures())


def memory_figures() -> dict[str, Any]:
    """What happened: `reused`, `out_of_memory` and `works_after` are truths, `lost_bytes` a number."""
    import torch

    ones = torch.ones(256, 256, device="cuda")
    right = bool((ones @ ones == 256).all())
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    block = torch.empty(free // 2, dtype=torch.uint8, device="cuda")
    place = block.data_ptr()
    del block
    again = torch.empty(free // 2, dtype=torch.uint8, device="cuda")
    figures: dict[str, Any] = {"reused": again.data_ptr() == place, "out_of_memory": False}
    del again
    try:
        torch.empty(2 * total, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError:
        figures["out_of_memory"] = True
    figures["works_after"] = right and bool((ones @ ones == 256).all())
    torch.cuda.empty_cache()
    return {**figures, "lost_bytes": free - torch.cuda.mem_get_info()[0], "total_bytes": total}


def judge_memory(figures: Mapping[str, Any]) -> Result:
    """Judge what `memory_figures` found."""
    problems = {
        "a freed block was not given out again": not figures["reused"],
        "a request for twice the memory did not fail": not figures["out_of_memory"],
        "after that, results are wrong": not figures["works_after"],
        f"{figures['lost_bytes'] / 2**20:.0f} MiB did not come back": figures["lost_bytes"] > LEAK_BYTES,
    }
    wrong = [problem for problem, is_so in problems.items() if is_so]
    if wrong:
        return failed(
            "; ".join(wrong), expected="memory that is freed can be used again", **figures,
            todo="see what else uses this GPU (nvidia-smi) and what PYTORCH_ALLOC_CONF asks for",
        )  # fmt: skip
    return passed(f"{figures['total_bytes'] / 1e9:.1f} GB; freed memory is used again, and running out is survived")


@check(
    "profiler",
    needs=("gpu",),
    tags=("cuda",),
    frameworks=("torch",),
    timeout=120.0,
    proves="the profiler sees what the GPU does",
    criterion="a profile holds GPU kernels; a warning if this user may not see them",
)
def profiler(_context: Context) -> Result:
    """Profile a matrix product."""
    return judge_profile(profiled_kernels())


def profiled_kernels() -> dict[str, float]:
    """Kernel -> its time on the GPU in microseconds."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    x = torch.randn(1024, 1024, device="cuda")
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as made:
        (x @ x).sum().item()
    kernels = [event for event in made.key_averages() if event.device_type.name == "CUDA"]
    return {kernel.key: kernel.self_device_time_total for kernel in kernels}


def judge_profile(kernels: Mapping[str, float]) -> Result:
    """Judge a profile: kernel -> microseconds."""
    if not kernels:
        return warned(
            "the profile holds no GPU kernels", expected="kernels with their times",
            todo="allow it on the host (NVreg_RestrictProfilingToAdminUsers=0), or give the container CAP_SYS_ADMIN",
        )  # fmt: skip
    return passed(f"{len(kernels)} kinds of GPU kernels, {sum(kernels.values()):.0f} µs", kernels=len(kernels))


@check(
    "ddp-fsdp-hvd",
    needs=("multi-gpu",),
    tags=("cuda", "distributed"),
    frameworks=("torch",),
    timeout=300.0,
    proves="all GPUs of this node train together as one would",
    criterion=f"DDP, FSDP and Horovod equal one process to {MOST_GPU_TRAINING_ERROR:g}; sharded checkpoints work",
)
def ddp_fsdp_hvd(context: Context) -> Result:
    """Train on every GPU in each way that the image has."""
    device, procs = "cuda", context.gpus
    kinds = {"kinds": ["ddp", "fsdp"]}
    try:
        answers = ranks.run(
            context, "stackrt.checks.torch_ranks:train", procs, device=device, arguments=kinds, timeout=140
        )
        if context.image and context.image.horovod:
            name = "stackrt.checks.horovod_torch:optimizer"
            more = ranks.run(context, name, procs, framework="horovod", device=device, timeout=140)
            answers = [{**one, **other} for one, other in zip(answers, more, strict=True)]
    except ranks.RanksError as error:
        return ranks_failed(error)
    return judge_training(answers, MOST_GPU_TRAINING_ERROR)
