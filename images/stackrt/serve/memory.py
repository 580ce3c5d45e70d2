"""How much memory this machine, container or GPU gives, and whether a model fits into it."""

import os
from collections.abc import Mapping, Sequence
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


def of_gpus(device: str, env: Mapping[str, str] = os.environ) -> list[int]:
    """Bytes that are free on each GPU that a server computes on; none where it takes none, or that is not told.

    Args:
        device: As the option.
    """
    if device == "cpu" or not _torch_knows_gpus():
        return []
    try:
        with nvml.opened() as driver:
            chosen = gpus.visible(env.get("CUDA_VISIBLE_DEVICES"), driver.uuids())
            told = [driver.free_memory(driver.handle(uuid)) for uuid in chosen]
            free = [size for size in told if size is not None]
            return free if len(free) == len(told) else []
    except (nvml.NoDriver, nvml.GpuGone):
        return []


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
    free = of_gpus(o.device)
    taken = _main(*before, on_gpu=bool(free)) if before else 0
    most = max(0, int(o.memory * (1 << 30)) - taken) if o.memory else limit(taken=taken)
    check(model, o, most, free)


def check(model: Model, o: Options, most: int, free: Sequence[int] = ()) -> None:
    """See that a server's workers fit.

    Args:
        model: The model.
        o: The server's options.
        most: Bytes of main memory that all of them may take.
        free: Bytes of each GPU that they compute on, which they take in turn; none for none.

    Raises:
        BadInputError: They do not; says what is needed and what would help.
    """
    _see(model, o.workers, _main(model, o, on_gpu=bool(free)), most, "memory")
    each = model.needs_of_gpu(o.dtype, o.context, o.max_batch) if free else 0
    for number, there in enumerate(free[: o.workers]):
        workers = len(range(number, o.workers, len(free)))
        of = "the GPU's memory" if len(free) == 1 else f"memory of GPU {number}"
        _see(model, workers, each * workers, there, of)


def _main(model: Model, o: Options, *, on_gpu: bool) -> int:
    """Bytes of main memory that a server's workers take."""
    each = model.needs_beside_gpu(o.dtype) if on_gpu else model.needs(o.dtype, o.context, o.max_batch)
    return each * o.workers


def _see(model: Model, workers: int, needed: int, most: int, kind: str) -> None:
    if needed <= most:
        return
    count = f"{workers} workers need {gib(needed)}" if workers > 1 else f"this model needs {gib(needed)}"
    less = "fewer --workers, " if workers > 1 else ""
    less += "a smaller --max-batch or --context, --dtype bfloat16, " if model.kind == "language" else ""
    raise BadInputError(f"{model.path}: {count} of {kind}, and there are {gib(most)}; {less}or more memory")


def gib(size: int) -> str:
    """`1.5 GiB`."""
    return f"{size / (1 << 30):.2f} GiB"
