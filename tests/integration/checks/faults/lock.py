from __future__ import annotations

from pathlib import Path

from stackrt.checks.context import Context
from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy, healthy_in


def install(context: Context, name: str, version: str, *requires: str) -> Path:
    """A distribution in the environment of a small image."""
    folder = context.site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {text}" for text in requires), ""]))
    return folder


def lock(context: Context, *pins: str) -> None:
    (context.stack / "locks").mkdir()
    (context.stack / "locks" / "all.txt").write_text("".join(f"{pin} \\\n    --hash=sha256:0\n" for pin in pins))


@fault("lock-match", "a stale lock: another version is installed")
def stale_lock(bench: Bench) -> Result:
    context = bench.context()
    install(context, "typing_extensions", "4.16.0")
    lock(context, "typing-extensions==4.15.0")
    return bench.run("lock-match", context)


@fault("lock-match", "a package that no lock names")
def extra_package(bench: Bench) -> Result:
    context = bench.context()
    install(context, "a", "1")
    install(context, "b", "1")
    lock(context, "a==1")
    return bench.run("lock-match", context)


@healthy("lock-match")
def pinned_package(bench: Bench) -> Result:
    """An image FROM ours, with a lock of what it adds."""
    context = bench.context()
    install(context, "a", "1")
    install(context, "b", "1")
    lock(context, "a==1")
    (context.stack / "locks" / "mine.txt").write_text("b==1\n")
    return bench.run("lock-match", context)


@fault("lock-match", "a locked package removed from the image", needs=("docker",))
def removed_package(bench: Bench) -> Result:
    return bench.sick()["lock-match"]


@fault("pip-check", "a required package removed from the image", needs=("docker",))
def removed_requirement(bench: Bench) -> Result:
    return bench.sick()["pip-check"]


@fault("pip-check", "a package too old for another")
def too_old(bench: Bench) -> Result:
    context = bench.context()
    install(context, "a", "1", "b>=2", 'c; extra == "more"')
    install(context, "b", "1.9")
    return bench.run("pip-check", context)


@fault("one-cuda-major", "wheels of CUDA 12 and 13 together")
def two_majors(bench: Bench) -> Result:
    context = bench.context()
    install(context, "nvidia-cudnn-cu12", "9.1")
    install(context, "nvidia-nccl-cu13", "2.28")
    return bench.run("one-cuda-major", context)


@fault("one-cuda-major", "a wheel of CUDA 12 beside a toolkit 13")
def suffix_and_version(bench: Bench) -> Result:
    context = bench.context()
    install(context, "nvidia-cudnn-cu12", "9.1")
    install(context, "cuda-toolkit", "13.0.2")
    return bench.run("one-cuda-major", context)


@healthy("one-cuda-major")
def one_major(bench: Bench) -> Result:
    context = bench.context()
    install(context, "nvidia-cudnn-cu13", "9.1")
    install(context, "cuda-toolkit", "13.0.2")
    return bench.run("one-cuda-major", context)


@fault("cpu-is-cpu", "an NVIDIA wheel in a CPU image")
def nvidia_wheel(bench: Bench) -> Result:
    context = bench.context()
    install(context, "nvidia-cublas-cu12", "12.9")
    return bench.run("cpu-is-cpu", context)


@fault("cpu-is-cpu", "a CUDA build of torch in a CPU image")
def cuda_build(bench: Bench) -> Result:
    context = bench.context()
    install(context, "torch", "2.13.0+cu130")
    return bench.run("cpu-is-cpu", context)


healthy_in("pytorch", "lock-match", "pip-check", "one-cuda-major", "cpu-is-cpu")
healthy_in("pytorch:cuda", "one-cuda-major")
