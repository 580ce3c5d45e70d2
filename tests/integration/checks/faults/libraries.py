from __future__ import annotations

from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy, healthy_in


def wheels(bench: Bench, *files: str) -> Result:
    context = bench.context()
    for name in files:
        path = context.root / "opt/venv" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    link = context.root / "opt/venv/nvidia/nccl/lib/libnccl.so"
    link.symlink_to("libnccl.so.2")
    return bench.run("no-duplicate-libs", context)


@fault("no-duplicate-libs", "a second NCCL, in another package")
def two_nccl(bench: Bench) -> Result:
    return wheels(bench, "nvidia/nccl/lib/libnccl.so.2", "another/lib/libnccl.so.2")


@healthy("no-duplicate-libs")
def one_nccl(bench: Bench) -> Result:
    return wheels(bench, "nvidia/nccl/lib/libnccl.so.2", "nvidia/nccl/lib/libnccl_static.txt")


@fault("ldd-clean", "a library removed from PyTorch", needs=("docker",))
def removed_library(bench: Bench) -> Result:
    return bench.sick()["ldd-clean"]


healthy_in("pytorch", "ldd-clean")
healthy_in("pytorch:cuda", "no-duplicate-libs", "ldd-clean")
healthy_in("tensorflow:cuda", "no-duplicate-libs", "ldd-clean")


NO_VERBS = "rm /usr/lib/*/libibverbs.so.1* /usr/lib/*/libibverbs/libefa-*"


@fault("rdma-libraries", "an image without libibverbs, as most have none", needs=("docker", "cuda-images"))
def no_verbs(bench: Bench) -> Result:
    only = ("rdma-libraries",)
    result = bench.report("pytorch:cuda", "--user", "0", plant=NO_VERBS, only=only)["rdma-libraries"]
    assert "libibverbs.so.1: cannot open shared object file" in result.found
    assert "no driver efa" in result.found
    return result


healthy_in("pytorch:cuda", "rdma-libraries")
healthy_in("tensorflow:cuda", "rdma-libraries")
