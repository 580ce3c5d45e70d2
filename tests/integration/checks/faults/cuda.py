"""Small wheels stand for NVIDIA's, and the CUDA images for themselves."""

from __future__ import annotations

from pathlib import Path

from stackrt.checks import cuda
from stackrt.checks.context import Context
from stackrt.checks.result import Result
from tests.fakes import wheel
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy, healthy_in

NCCL = "int ncclGetVersion(int *version) { *version = 22907; return 0; }"
REAL = ("docker", "cuda-images")
CLAIM_KEPLER = 'sed -i \'s/"7.5"/"3.5"/; s/"6.0"/"3.5"/\' /opt/stack/image.json'
"""A claim that no current CUDA meets."""


def image(bench: Bench, framework: str = "tensorflow") -> Context:
    return bench.context(bench.facts(framework=framework, cuda="13.0", gpu_architectures=("9.0",)))


def kepler(bench: Bench, name: str) -> dict[str, Result]:
    only = ("arch-flags", "nvrtc", "triton-compile" if name == "pytorch" else "ptxas")
    return bench.report(f"{name}:cuda", "--user", "0", plant=CLAIM_KEPLER, only=only)


@fault("cuda-libraries", "a library removed from its wheel", needs=("compiler",))
def removed(bench: Bench) -> Result:
    context = image(bench)
    (wheel.install(context.site, "nvidia-nccl-cu13", "2.29.7", {"libnccl.so.2": NCCL}) / "libnccl.so.2").unlink()
    return bench.run("cuda-libraries", context)


@fault("cuda-libraries", "a library that needs an absent one", needs=("compiler",))
def needs_absent(bench: Bench) -> Result:
    context = image(bench)
    folder = wheel.install(context.site, "nvidia-nccl-cu13", "2.29.7", {"libnccl.so.2": NCCL, "libhelp.so": "int a;"})
    wheel.compile_library(folder / "libhelp.so", "int help(void) { return 1; }", soname="libhelp.so")
    more = NCCL + "int help(void); int use(void) { return help(); }"
    wheel.compile_library(folder / "libnccl.so.2", more, folder / "libhelp.so")
    return bench.run("cuda-libraries", context)


@fault("cuda-libraries", "a symbol that no library has", needs=("compiler",))
def unresolved(bench: Bench) -> Result:
    context = image(bench)
    more = NCCL + "int absent(void); int use(void) { return absent(); }"
    wheel.install(context.site, "nvidia-nccl-cu13", "2.29.7", {"libnccl.so.2": more})
    return bench.run("cuda-libraries", context)


@fault("cuda-libraries", "a part of cuDNN removed from the image", needs=REAL)
def removed_from_image(bench: Bench) -> Result:
    plant = "rm /opt/venv/lib/python3*/site-packages/nvidia/cudnn/lib/libcudnn_graph.so.9"
    return bench.report("pytorch:cuda", "--user", "0", plant=plant, only=("cuda-libraries",))["cuda-libraries"]


@healthy("cuda-libraries", needs=("compiler",))
def whole(bench: Bench) -> Result:
    context = image(bench)
    wheel.install(context.site, "nvidia-nccl-cu13", "2.29.7", {"libnccl.so.2": NCCL})
    return bench.run("cuda-libraries", context)


@fault("cuda-versions", "a wheel that holds a library of another version", needs=("compiler",))
def other_version(bench: Bench) -> Result:
    context = image(bench)
    wheel.install(context.site, "nvidia-nccl-cu13", "2.28.9", {"libnccl.so.2": NCCL})
    return bench.run("cuda-versions", context)


@fault("cuda-versions", "PyTorch of another CUDA than the image", needs=("compiler", "torch"))
def other_cuda(bench: Bench) -> Result:
    context = image(bench, "torch")
    wheel.install(context.site, "nvidia-nccl-cu13", "2.29.7", {"libnccl.so.2": NCCL})
    return bench.run("cuda-versions", context, loaded=("torch",))


@healthy("cuda-versions", needs=("compiler",))
def same_versions(bench: Bench) -> Result:
    context = image(bench)
    wheel.install(context.site, "nvidia-nccl-cu13", "2.29.7", {"libnccl.so.2": NCCL})
    return bench.run("cuda-versions", context)


@fault("arch-flags", "a CPU build of PyTorch in a CUDA image", needs=("torch",))
def cpu_build(bench: Bench) -> Result:
    return bench.run("arch-flags", image(bench, "torch"), loaded=("torch",))


@fault("arch-flags", "a claimed architecture that the framework has no code for")
def no_code(bench: Bench) -> Result:
    return cuda.judge_architectures(["sm_80", "sm_90"], ["7.5", "8.6", "9.0"])


@fault("arch-flags", "a claimed architecture that PyTorch's wheel lacks", needs=REAL)
def wheel_without(bench: Bench) -> Result:
    return kepler(bench, "pytorch")["arch-flags"]


@healthy("arch-flags")
def all_covered(bench: Bench) -> Result:
    return cuda.judge_architectures(["sm_80", "sm_90", "compute_90"], ["8.0", "8.6", "9.0", "12.0"])


@fault("nvrtc", "nvRTC is not installed")
def no_nvrtc(bench: Bench) -> Result:
    return bench.run("nvrtc", image(bench))


@fault("nvrtc", "a claimed architecture that nvRTC does not know", needs=REAL)
def unknown_to_nvrtc(bench: Bench) -> Result:
    return kepler(bench, "tensorflow")["nvrtc"]


def with_ptxas(bench: Bench, script: str, mode: int) -> Result:
    context = image(bench)
    folder: Path = wheel.install(context.site, "nvidia-cuda-nvcc-cu12", "12.9.86", {}, {"ptxas": script})
    (folder / "ptxas").chmod(mode)
    return bench.run("ptxas", context)


@fault("ptxas", "the wheel's ptxas cannot be executed")
def not_executable(bench: Bench) -> Result:
    return with_ptxas(bench, "#!/bin/sh\n", 0o644)


@fault("ptxas", "a claimed architecture that ptxas does not know")
def unknown_to_ptxas(bench: Bench) -> Result:
    return with_ptxas(bench, "#!/bin/sh\necho \"ptxas fatal: Value 'sm_90' is not defined\" >&2; exit 1\n", 0o755)


@fault("triton-compile", "Triton is not installed", needs=("torch",))
def no_triton(bench: Bench) -> Result:
    return bench.run("triton-compile", image(bench, "torch"))


@fault("triton-compile", "a claimed architecture that Triton does not know", needs=REAL)
def unknown_to_triton(bench: Bench) -> Result:
    return kepler(bench, "pytorch")["triton-compile"]


def loaded(bench: Bench, seen: int, *foreign: Path, version: str = "2.29.7") -> Result:
    folder = wheel.install(bench.context().site, "nvidia-nccl-cu13", version, {"libnccl.so.2": NCCL})
    maps = "".join(f"7f0 r-xp 0 08:01 7   {file}\n" for file in [folder / "libnccl.so.2", *foreign])
    return cuda.judge_loaded(seen, 2, cuda.loaded(maps), bench.context().site)


@healthy("runtime-versions", needs=("compiler",))
def own_libraries(bench: Bench) -> Result:
    return loaded(bench, 2)


@fault("runtime-versions", "the framework sees fewer GPUs than the driver", needs=("compiler",))
def fewer(bench: Bench) -> Result:
    return loaded(bench, 1)


@fault("runtime-versions", "an NCCL of the host is loaded", needs=("compiler",))
def of_the_host(bench: Bench) -> Result:
    wheel.compile_library(bench.tmp / "libnccl.so.2", NCCL)
    return loaded(bench, 2, bench.tmp / "libnccl.so.2")


@fault("runtime-versions", "the NCCL loaded is not of its wheel's version", needs=("compiler",))
def another_loaded(bench: Bench) -> Result:
    return loaded(bench, 2, version="2.28.9")


healthy_in("pytorch:cuda", "cuda-libraries", "cuda-versions", "arch-flags", "nvrtc", "triton-compile")
healthy_in("tensorflow:cuda", "cuda-libraries", "cuda-versions", "arch-flags", "nvrtc", "ptxas")
