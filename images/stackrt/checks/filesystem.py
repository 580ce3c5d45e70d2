"""Is the file system free of secrets and leftovers, and can a user without rights train on it?"""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from stackrt.checks.context import Context
from stackrt.checks.files import CERTIFICATE, audit
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped, warned
from stackrt.checks.secret_patterns import PATTERNS
from stackrt.checks.words import NO_IMAGE, some

SHARED_BYTES = 2**30
BATCH_BYTES = 8 * 2**20
KEY = "private key"
DEBIANS_OWN = re.compile(
    r"root|etc/(\.pwd\.lock|g?shadow-?|ssl/private|security/opasswd)|var/(cache|log|lib/(apt|dpkg))/.*"
)
"""What Debian lets only root look into."""
RESIDUE = (
    "tmp",
    "var/tmp",
    "var/log",
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/cache/uv",
    "root/.cache",
    "home/*/.cache",
    "run/secrets",
)


@check(
    "non-root",
    timeout=10.0,
    proves="a rank has no rights that it does not need, and works under whatever uid a cluster gives it",
    criterion="uid is not 0, a user name can be told, home is writable",
    parallel=True,
)
def non_root(_context: Context) -> Result:
    """Look at who runs this, and try to write to the home."""
    import getpass

    if os.geteuid() == 0:
        return failed(
            "it runs as root",
            expected="any other user",
            todo="leave out --user 0, or give --user 1000:1000; in Kubernetes set runAsNonRoot",
        )
    home = Path(os.environ.get("HOME") or "/")
    try:
        getpass.getuser()  # as PyTorch does, to name its cache
    except (KeyError, OSError):
        return failed(
            f"uid {os.getuid()} has no name, and USER is not set",
            expected="a name, for caches that carry it",
            todo="set USER to any word: -e USER=stack",
        )
    probe = home / f".stack-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return warned(
            f"{home} cannot be written to: {error.strerror}",
            expected="a writable home, for caches",
            todo="mount one (--tmpfs /home/stack), or name another (-e HOME=/tmp)",
            uid=os.getuid(),
        )
    return passed(f"uid {os.getuid()}, home {home} is writable", uid=os.getuid())


@check(
    "no-keys",
    tags=("image", "secrets"),
    timeout=120.0,
    proves="nobody who pulls the image gets a private key with it",
    criterion="no private key in a file that no package brought",
    parallel=True,
)
def no_keys(context: Context) -> Result:
    """Search the image's own files for private keys."""
    if context.image is None:
        return skipped(NO_IMAGE)
    searched = audit(context.root, context.site, {KEY: PATTERNS[KEY]})
    found = [path for path, kind in searched.found if kind == KEY]
    if found:
        return failed(
            some(found),
            expected="no private key",
            todo="remove it, and make a new key: it stays readable in the layer that brought it; give it at run time",
        )
    strange = [path for path in searched.unseen if not DEBIANS_OWN.fullmatch(os.path.relpath(path, context.root))]
    if strange:
        return warned(
            f"user {os.getuid()} may not look into {some(strange)}",
            expected="no file that only root can read: a private key is one",
            todo="look at it as root (docker run --user 0), and remove it if it is a key",
        )
    folders = [path for path in searched.unseen if Path(path).is_dir()]
    return passed("no private key" + (f"; only root could look into {some(folders)}" if folders else ""))


@check(
    "no-credentials",
    tags=("image", "secrets"),
    timeout=120.0,
    proves="nobody who pulls the image gets a password or a token with it",
    criterion="no known form of a secret in a file that no package brought",
    parallel=True,
)
def no_credentials(context: Context) -> Result:
    """Search the image's own files for passwords and tokens."""
    if context.image is None:
        return skipped(NO_IMAGE)
    searched = audit(context.root, context.site, {kind: form for kind, form in PATTERNS.items() if kind != KEY})
    # A certificate is none: an image FROM ours may trust more authorities. Ours may not: see `stackctl validate`.
    found = [f"{path} ({kind})" for path, kind in searched.found if kind != CERTIFICATE]
    if found:
        return failed(
            some(found),
            expected="no secret",
            todo="remove it, and revoke it: it stays readable in the layer that brought it; give it at run time",
        )
    return passed(f"{searched.searched} files of no package hold no secret", files=searched.searched)


@check(
    "no-residue",
    tags=("image",),
    proves="the image carries no caches, logs or temporary files of its build",
    criterion="nothing in /tmp, logs and caches from before the container's start",
    parallel=True,
)
def no_residue(context: Context) -> Result:
    """Look for files in places of leftovers that are older than this container."""
    if context.image is None:
        return skipped(NO_IMAGE)
    began = context.started or _container_start()
    found = []
    for pattern in RESIDUE:
        for folder in context.root.glob(pattern):
            for path in folder.rglob("*"):
                with suppress(OSError):
                    status = path.lstat()
                    if not path.is_dir() and status.st_size and status.st_ctime < began:
                        found.append(str(path))
    if found:
        return failed(
            some(found),
            expected="nothing left of the build",
            todo="remove them in the build step that makes them, or keep them in a cache mount",
        )
    return passed("nothing is left of the build")


@check(
    "shm-size",
    timeout=120.0,
    proves="data loaders with several workers can hand over their batches",
    criterion="shared memory of 1 GiB or more (a warning below), and a loader with two workers runs",
)
def shm_size(context: Context) -> Result:
    """Measure /dev/shm; with PyTorch also load some batches through it."""
    status = os.statvfs("/dev/shm")  # noqa: S108 - shared memory itself is looked at
    size = status.f_blocks * status.f_frsize
    figures: dict[str, float] = {"bytes": size}
    todo = "give it more: docker run --shm-size 1g; in Kubernetes an emptyDir of medium Memory at /dev/shm"
    if context.image and context.image.framework == "torch":
        begun = time.monotonic()
        try:
            _load(batches=8)
        except (RuntimeError, OSError, EOFError) as error:
            # An OSError: the first worker has left no room for the second one's semaphores, or died meanwhile.
            # The first line of what a worker raised only says which one.
            why = str(error).strip().rpartition("\n")[2] or type(error).__name__
            return failed(
                f"{size / 2**20:.0f} MiB, and a loader with two workers failed: {why}",
                expected="at least 1 GiB, and a loader that works",
                todo=todo,
                **figures,
            )
        figures["loader_seconds"] = round(time.monotonic() - begun, 2)
    if size < SHARED_BYTES:
        return warned(f"{size / 2**20:.0f} MiB", expected="at least 1 GiB", todo=todo, **figures)
    return passed(f"{size / 2**30:.1f} GiB", **figures)


def _load(batches: int) -> None:
    """Load batches of BATCH_BYTES with two workers.

    Raises:
        RuntimeError: A worker died, or a batch could not be handed over.
    """
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Rows(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return batches

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.full((BATCH_BYTES // 4,), float(index))

    loader = DataLoader(Rows(), batch_size=1, num_workers=2, timeout=30)
    first = [float(batch[0, 0]) for batch in loader]
    if first != [float(index) for index in range(batches)]:
        raise RuntimeError(f"batches came as {first}")


def _container_start() -> float:
    """When process 1 started, in Unix time (proc(5): boot time, and a process's start in ticks since)."""
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    fields: Sequence[str] = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    return int(boot.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK") - 1.0
