"""What can be proven of an image's CUDA without a GPU: its libraries, their versions, and its compilers."""

import ctypes
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from stackrt.checks import wheels
from stackrt.checks.context import Context
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped
from stackrt.checks.words import NO_CUDA, REBUILD
from stackrt.versions import numbers

RELOCK = "choose versions that fit in images/catalog.toml, then stackctl lock and stackctl build"
UNCLAIM = "take the architecture out of gpu_architectures in images/catalog.toml"
EM_CUDA = 190
"""e_machine of a cubin, which is an ELF file (the ELF registry of machines)."""

KERNEL = b"""
extern "C" __global__ void twice(float *x, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] *= 2.0f;
}
"""
PTX = ".version 6.3\n.target sm_{}\n.address_size 64\n.visible .entry nothing() {{ ret; }}\n"


def claimed(context: Context) -> tuple[str, ...]:
    """The GPU architectures that the image says it is for, `8.0`; none in a CPU image."""
    return context.image.gpu_architectures if context.image else ()


@check(
    "cuda-libraries",
    tags=("image",),
    timeout=120.0,
    proves="every CUDA library is there and whole, and finds all that it needs",
    criterion="each library of NVIDIA's wheels opens alone with all symbols, but for those that cuda.toml excuses",
)
def cuda_libraries(context: Context) -> Result:
    """Open every library of NVIDIA's wheels, each in a process of its own, so that none helps another."""
    if not claimed(context):
        return skipped(NO_CUDA)
    libraries = [file for wheel in wheels.installed(context.site).values() for file in wheel.libraries()]
    problems = {file: problem for file in libraries if (problem := wheels.open_alone(file))}
    bad = {file: problem for file, problem in problems.items() if not wheels.may_fail(file, problem)}
    figures = {"libraries": len(libraries), "excused": sorted(file.name for file in problems if file not in bad)}
    if bad or not libraries:
        found = "; ".join(f"{file.name}: {problem}" for file, problem in bad.items()) or "there is not one library"
        return failed(found, expected="every library opens", todo=REBUILD, **figures)
    return passed(f"{len(libraries) - len(problems)} libraries open; {len(problems)} optional ones need not", **figures)


@check(
    "cuda-versions",
    tags=("image",),
    timeout=60.0,
    proves="the CUDA libraries are the locked ones, and the framework uses these",
    criterion="the versions that the libraries report equal those of their wheels; PyTorch reports the same",
)
def cuda_versions(context: Context) -> Result:
    """Ask the libraries for their versions."""
    if not claimed(context) or context.image is None:
        return skipped(NO_CUDA)
    found = wheels.installed(context.site)
    figures = {wheel.name: version for wheel, _, version in wheels.reported(found)}
    wrong = [
        f"{library.name} is {version}, its wheel {wheel.version}"
        for wheel, library, version in wheels.reported(found)
        if not same_version(version, wheel.version)
    ]
    if context.image.framework == "torch" and context.image.cuda:
        told = torch_versions()
        wrong += [
            f"PyTorch uses {name} {version}, the image holds {wanted}"
            for name, version in told.items()
            if (wanted := {**figures, "CUDA": context.image.cuda}.get(name)) and not same_version(version, wanted)
        ]
    if wrong or not figures:
        return failed(
            "; ".join(wrong) or "none of the CUDA libraries is there", expected="one version of each, the locked one",
            todo=REBUILD + "; see that LD_LIBRARY_PATH adds no other CUDA", **figures,
        )  # fmt: skip
    return passed(
        ", ".join(f"{name.removeprefix('nvidia-')} {version}" for name, version in figures.items()), **figures
    )


def same_version(reported: str, wanted: str) -> bool:
    """Whether a version is another one, as far as both are told: `9.20.0` is `9.20.0.48`."""
    return all(a == b for a, b in zip(reported.split("."), wanted.split("."), strict=False))


def torch_versions() -> dict[str, str]:
    """What PyTorch says of the CUDA that it uses; it needs no GPU for that."""
    import torch

    cudnn = torch.backends.cudnn.version() or 0  # type: ignore[no-untyped-call]
    nccl = torch.cuda.nccl.version() if torch.distributed.is_nccl_available() else ()  # type: ignore[no-untyped-call]
    return {
        "CUDA": torch.version.cuda or "none",
        "nvidia-cudnn": f"{cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}",
        "nvidia-nccl": ".".join(map(str, nccl)) or "none",
    }


@check(
    "arch-flags",
    tags=("cuda", "image"),
    frameworks=("torch", "tensorflow"),
    timeout=60.0,
    proves="the framework has code for every GPU architecture that the image is for",
    criterion="machine code of the same major version, or PTX that the driver compiles at the first start",
)
def arch_flags(context: Context) -> Result:
    """Compare the architectures that the framework was compiled for with those that the image claims."""
    if not claimed(context) or context.image is None:
        return skipped(NO_CUDA)
    if context.image.framework == "torch":
        import torch

        # A CPU build has no such function.
        flags = getattr(torch._C, "_cuda_getArchFlags", str)().split()
    else:
        import tensorflow as tf

        flags = list(tf.sysconfig.get_build_info()["cuda_compute_capabilities"])
    return judge_architectures(flags, claimed(context))


def judge_architectures(flags: Sequence[str], wanted: Sequence[str]) -> Result:
    """Judge a framework's code.

    Args:
        flags: What it was compiled to: `sm_80` is machine code, `compute_90` is PTX.
        wanted: The architectures claimed, `8.0`.
    """
    native = {version(flag) for flag in flags if flag.startswith("sm_")}
    ptx = {version(flag) for flag in flags if flag.startswith("compute_")}
    late: list[str] = []
    absent: list[str] = []
    for name in wanted:
        major, minor = numbers(name)
        # Machine code runs on its own and later minor versions of its major; PTX on everything later.
        if not any(have_major == major and have_minor <= minor for have_major, have_minor in native):
            (late if any(have <= (major, minor) for have in ptx) else absent).append(name)
    figures = {"flags": list(flags), "from_ptx": late}
    if absent:
        return failed(
            f"no code for {', '.join(absent)}; there is {' '.join(flags) or 'none at all'}",
            expected=f"code for {', '.join(wanted)}", **figures,
            todo=f"{UNCLAIM}, or another build of the framework",
        )  # fmt: skip
    more = f"; {', '.join(late)} compiled from PTX at the first start" if late else ""
    return passed(f"code for {', '.join(name for name in wanted if name not in late)}{more}", **figures)


def version(flag: str) -> tuple[int, int]:
    """The architecture in a compiler's flag: `sm_90a` -> (9, 0), `compute_120` -> (12, 0)."""
    digits = re.sub(r"\D", "", flag)
    return int(digits[:-1]), int(digits[-1])


@check(
    "nvrtc",
    tags=("cuda", "image", "compiler"),
    timeout=60.0,
    proves="CUDA's run-time compiler works, which fused kernels are made with",
    criterion="a kernel compiles to machine code for each claimed architecture",
)
def nvrtc(context: Context) -> Result:
    """Compile a kernel with nvRTC through ctypes."""
    if not claimed(context):
        return skipped(NO_CUDA)
    wheel = wheels.installed(context.site).get("nvidia-cuda-nvrtc")
    if wheel is None:
        return failed("nvidia-cuda-nvrtc is not installed", expected="nvRTC in every CUDA image", todo=RELOCK)
    # It looks for its built-in headers by name only; frameworks load them first, and so do we.
    for builtins in wheel.libraries("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins))
    (library,) = wheel.libraries("libnvrtc.so.*")
    compiler = ctypes.CDLL(str(library))
    return judge_compiled("nvRTC", {name: compile_with_nvrtc(compiler, name) for name in claimed(context)})


def compile_with_nvrtc(compiler: ctypes.CDLL, architecture: str) -> str:
    """Why a kernel does not compile for an architecture, or empty (nvrtc.h)."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    compiler.nvrtcCreateProgram(ctypes.byref(program), KERNEL, b"twice.cu", 0, None, None)
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture=sm_{architecture.replace('.', '')}".encode())
    try:
        if compiler.nvrtcCompileProgram(program, 1, options):
            compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            compiler.nvrtcGetProgramLog(program, log)
            return log.value.decode(errors="replace").strip() or "it does not say why"
        compiler.nvrtcGetCUBINSize(program, ctypes.byref(size))
        cubin = ctypes.create_string_buffer(size.value)
        compiler.nvrtcGetCUBIN(program, cubin)
        return "" if is_cubin(cubin.raw) else "what it made is no machine code"
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))


def is_cubin(data: bytes) -> bool:
    """Whether this is machine code for a GPU."""
    return data[:4] == b"\x7fELF" and int.from_bytes(data[18:20], "little") == EM_CUDA


def judge_compiled(compiler: str, problems: dict[str, str]) -> Result:
    """Judge a compiler: architecture -> why it made no machine code for it, or empty."""
    bad = {name: problem.splitlines()[0] for name, problem in problems.items() if problem}
    if bad:
        return failed(
            "; ".join(f"{name}: {problem}" for name, problem in bad.items()),
            expected=f"machine code for {', '.join(problems)}",
            todo=f"{UNCLAIM}, or see why {compiler} fails",
        )
    return passed(f"{compiler} compiles for {', '.join(problems)}")


@check(
    "ptxas",
    tags=("cuda", "image", "compiler"),
    frameworks=("tensorflow",),
    timeout=60.0,
    proves="XLA's assembler works",
    criterion="the ptxas of the wheel runs and makes machine code for each claimed architecture",
)
def ptxas(context: Context) -> Result:
    """Assemble PTX with the program that TensorFlow's CUDA wheels bring."""
    if not claimed(context):
        return skipped(NO_CUDA)
    wheel = wheels.installed(context.site).get("nvidia-cuda-nvcc")
    program = next((file for file in wheel.files if file.name == "ptxas"), None) if wheel else None
    if program is None:
        return failed("the wheels bring no ptxas", expected="ptxas, which XLA calls", todo=RELOCK)
    if not os.access(program, os.X_OK):
        return failed(f"{program} cannot be executed", expected="a program that this user can run", todo=REBUILD)
    return judge_compiled("ptxas", {name: assemble(program, name, context) for name in claimed(context)})


def assemble(program: Path, architecture: str, context: Context) -> str:
    """Why ptxas makes no machine code for an architecture, or empty."""
    lowest = min(claimed(context), key=numbers)
    source, made = context.scratch / "nothing.ptx", context.scratch / f"{architecture}.cubin"
    source.write_text(PTX.format(lowest.replace(".", "")))
    argv = [str(program), f"-arch=sm_{architecture.replace('.', '')}", str(source), "-o", str(made)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return done.stderr.strip() or f"it ended with exit code {done.returncode}"
    return "" if is_cubin(made.read_bytes()) else "what it made is no machine code"


@check(
    "triton-compile",
    tags=("cuda", "image", "compiler"),
    frameworks=("torch",),
    timeout=90.0,
    proves="Triton, which torch.compile makes GPU code with, works for the image's GPUs",
    criterion="a Triton kernel compiles ahead of time for each claimed architecture",
)
def triton_compile(context: Context) -> Result:
    """Compile a Triton kernel; it needs no GPU for that."""
    if not claimed(context):
        return skipped(NO_CUDA)
    os.environ["TRITON_CACHE_DIR"] = str(context.scratch / "triton")
    return judge_compiled("Triton", {name: compile_with_triton(name) for name in claimed(context)})


def compile_with_triton(architecture: str) -> str:
    """Why Triton does not compile a kernel for an architecture, or empty."""
    try:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        from stackrt.checks.triton_kernel import BLOCK, double_and_add
    except ImportError as error:
        return str(error)
    signature = {"x": "*fp32", "y": "*fp32", "out": "*fp32", "count": "i32", "size": "constexpr"}
    target = GPUTarget("cuda", int(architecture.replace(".", "")), 32)
    try:
        made = triton.compile(ASTSource(double_and_add, signature, {"size": BLOCK}), target=target)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return next((line for line in lines if "fatal" in line), lines[0] if lines else type(error).__name__)
    return "" if is_cubin(made.asm["cubin"]) else "what it made is no machine code"


@check(
    "runtime-versions",
    needs=("gpu",),
    tags=("cuda",),
    frameworks=("torch", "tensorflow"),
    timeout=120.0,
    proves="the framework sees the GPUs, and computes with the image's own CUDA libraries",
    criterion="as many GPUs as the driver shows; every library loaded is the wheel's, with the version of the lock",
)
def runtime_versions(context: Context) -> Result:
    """Compute on a GPU, then read from this process's memory map what was loaded for it."""
    if not claimed(context) or context.image is None:
        return skipped(NO_CUDA)
    seen = compute_on_gpu(context.image.framework)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    return judge_loaded(seen, context.gpus, loaded(maps), context.site)


def compute_on_gpu(framework: str) -> int:
    """Make a framework load cuBLAS and cuDNN; returns how many GPUs it sees, without computing if there is none."""
    if framework == "torch":
        import torch

        if torch.cuda.is_available():
            pictures = torch.ones(1, 8, 16, 16, device="cuda")
            torch.nn.functional.conv2d(pictures, torch.ones(8, 8, 3, 3, device="cuda"))
            torch.mm(pictures[0, 0], pictures[0, 0])
            torch.cuda.synchronize()
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        with tf.device("/GPU:0"):
            pictures = tf.ones((1, 16, 16, 8))
            tf.nn.conv2d(pictures, tf.ones((3, 3, 8, 8)), strides=1, padding="SAME").numpy()
            tf.linalg.matmul(pictures[0, :, :, 0], pictures[0, :, :, 0]).numpy()
    return gpus


def loaded(maps: str) -> list[Path]:
    """The files that a memory map (proc(5)) names, once each."""
    return [Path(name) for name in dict.fromkeys(re.findall(r"(/\S.*?)(?: \(deleted\))?$", maps, re.MULTILINE))]


def judge_loaded(seen: int, visible: int, files: Iterable[Path], site: Path) -> Result:
    """Judge what a framework loaded to compute on a GPU.

    Args:
        seen: GPUs that it sees.
        visible: GPUs that the driver shows to this process.
        files: What it has loaded.
        site: The environment's folder of packages.
    """
    if seen != visible:
        return failed(
            f"the framework sees {seen} of {visible} GPUs", expected=f"{visible} GPUs", gpus=seen,
            todo="see what it says of CUDA in the lines above; run driver-floor and cuda-libraries",
        )  # fmt: skip
    known = [row["library"] for row in wheels.knowledge()["version"]]
    libraries = [file for file in files if any(file.match(pattern) for pattern in known)]
    foreign = [file for file in libraries if not file.is_relative_to(site)]
    versions = list(wheels.reported(wheels.installed(site), libraries))
    wrong = [f"{library} is {found}" for wheel, library, found in versions if not same_version(found, wheel.version)]
    figures = {wheel.name: found for wheel, _, found in versions}
    if foreign or wrong or not libraries:
        return failed(
            "; ".join([*(f"{file} is not of this image" for file in foreign), *wrong]) or "no CUDA library was loaded",
            expected="the libraries of the image's wheels", todo="unset LD_LIBRARY_PATH and LD_PRELOAD", **figures,
        )  # fmt: skip
    return passed(f"{seen} GPUs; {len(libraries)} CUDA libraries loaded, all of the image", **figures)
