"""How much memory this machine or container gives, and whether a model fits into it."""

from pathlib import Path

from stackrt.serve.found import Model
from stackrt.train.errors import BadInputError

_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")


def limit(root: Path = Path("/")) -> int:
    """Bytes: the container's limit, or what the machine has free if that is less."""
    found = []
    for name in _LIMITS:
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    try:
        rows = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        rows = []
    found += [int(row.split()[1]) << 10 for row in rows if row.startswith("MemAvailable:")]
    return min(found, default=1 << 62)


def check(model: Model, *, dtype: str, context: int, batch: int, workers: int, most: int) -> None:
    """See that a server's workers fit.

    Args:
        model: The model.
        dtype: As the option.
        context: As the option.
        batch: Requests that are computed together.
        workers: Processes.
        most: Bytes that all of them may take.

    Raises:
        BadInputError: They do not; says what is needed and what would help.
    """
    each = model.needs(dtype, context, batch)
    if each * workers <= most:
        return
    count = f"{workers} workers need {gib(each * workers)}" if workers > 1 else f"this model needs {gib(each)}"
    less = "fewer --workers, " if workers > 1 else ""
    less += "a smaller --max-batch or --context, --dtype bfloat16, " if model.kind == "language" else ""
    raise BadInputError(f"{model.path}: {count} of memory, and there are {gib(most)}; {less}or more memory")


def gib(size: int) -> str:
    """`1.5 GiB`."""
    return f"{size / (1 << 30):.2f} GiB"
