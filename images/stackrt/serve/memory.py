"""How much memory this machine, container or GPU gives, and whether a model fits into it."""

import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from stackrt import nvml
from stackrt.launch import gpus
from stackrt.serve.found import Model
from stackrt.serve.options import Options
from stackrt.train.errors import BadInputError

_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")


def limit(root: Path = Path("/"), taken: int = 0) -> int:
    """Bytes: the container's limit, or what the machine has free if that is less.

    Args:
        taken: Bytes that an earlier model takes of the limit.
    """
    found = []
    for name in _LIMITS:
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(max(0, int(text) - taken))
    try:
        rows = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        rows = []
    found += [int(row.split()[1]) << 10 for row in rows if row.startswith("MemAvailable:")]
    return min(found, default=1 << 62)


def gpu(device: str, env: Mapping[str, str] = os.environ) -> int | None:
    """Bytes that are free on the GPU that a server computes on; None where it takes none, or that is not told.

    Args:
        device: As the option.
    """
    if device == "cpu" or not _torch_knows_gpus():
        return None
    try:
        with nvml.opened() as driver:
            chosen = gpus.visible(env.get("CUDA_VISIBLE_DEVICES"), driver.uuids())
            return driver.free_memory(driver.handle(chosen[0])) if chosen else None
    except (nvml.NoDriver, nvml.GpuGone):
        return None


def _torch_knows_gpus() -> bool:
    """Whether PyTorch is not one for CPUs alone, as far as its version says; importing it takes seconds."""
    try:
        return not metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def fits(model: Model, o: Options, before: tuple[Model, Options] | None = None) -> None:
    """See that a server fits into what it may use.

    Args:
        model: The model.
        o: The server's options.
        before: The model that goes on meanwhile, with its options.

    Raises:
        BadInputError: It does not.
    """
    free = gpu(o.device)
    taken = _main(*before, on_gpu=free is not None) if before else 0
    most = max(0, int(o.memory * (1 << 30)) - taken) if o.memory else limit(taken=taken)
    check(model, o, most, free)


def check(model: Model, o: Options, most: int, free: int | None = None) -> None:
    """See that a server's workers fit.

    Args:
        model: The model.
        o: The server's options.
        most: Bytes of main memory that all of them may take.
        free: Bytes of the GPU that they compute on; None for none.

    Raises:
        BadInputError: They do not; says what is needed and what would help.
    """
    _see(model, o, _main(model, o, on_gpu=free is not None), most, "memory")
    if free is not None:
        _see(model, o, model.needs_of_gpu(o.dtype, o.context, o.max_batch) * o.workers, free, "the GPU's memory")


def _main(model: Model, o: Options, *, on_gpu: bool) -> int:
    """Bytes of main memory that a server's workers take."""
    each = model.needs_beside_gpu(o.dtype) if on_gpu else model.needs(o.dtype, o.context, o.max_batch)
    return each * o.workers


def _see(model: Model, o: Options, needed: int, most: int, kind: str) -> None:
    if needed <= most:
        return
    count = f"{o.workers} workers need {gib(needed)}" if o.workers > 1 else f"this model needs {gib(needed)}"
    less = "fewer --workers, " if o.workers > 1 else ""
    less += "a smaller --max-batch or --context, --dtype bfloat16, " if model.kind == "language" else ""
    raise BadInputError(f"{model.path}: {count} of {kind}, and there are {gib(most)}; {less}or more memory")


def gib(size: int) -> str:
    """`1.5 GiB`."""
    return f"{size / (1 << 30):.2f} GiB"
