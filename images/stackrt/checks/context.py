"""What a check is told: the image it is in, the machine, and where it may write."""

import json
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from stackrt.contract import FACTS, FACTS_SCHEMA, STACK

T = TypeVar("T")


class FactsError(Exception):
    """image.json cannot be used; `str()` names the file and the key."""


@dataclass(frozen=True)
class ImageFacts:
    """What the image says of itself: /opt/stack/image.json, written by its build."""

    image: str
    variant: str
    framework: str
    horovod: bool
    versions: dict[str, str]
    cuda: str
    minimum_driver: str
    gpu_architectures: tuple[str, ...]
    python: str
    base: str
    lock: str
    locks: tuple[str, ...]
    budget: int
    """Bytes that the image may have; 0 for no budget."""
    mpi: bool = False
    compiler: bool = True
    """Whether the image is to have a compiler for what its framework compiles while it runs."""

    @property
    def frameworks(self) -> frozenset[str]:
        """The frameworks in the image, in the words of registry.PARTS."""
        return frameworks(self.framework, horovod=self.horovod, mpi=self.mpi)


def frameworks(framework: str, *, horovod: bool, mpi: bool) -> frozenset[str]:
    """The frameworks of an image, in the words of registry.PARTS."""
    more = {"horovod": horovod, "mpi": mpi}
    return frozenset({framework, *(name for name, there in more.items() if there)})


@dataclass(frozen=True)
class Seen:
    """What the container engine knows of the image, and only it: handed in by `stackctl test`."""

    digest: str
    size: int
    """Bytes, uncompressed."""
    labels: dict[str, str]
    stop_seconds: float | None = None
    """How long a container of it took to end after SIGTERM; None if that was not tried."""


@dataclass(frozen=True)
class Context:
    """What a check is told. All paths can be replaced, so that a test can plant a fault."""

    image: ImageFacts | None
    """None outside an image of this stack."""
    scratch: Path
    """An empty folder of the check's own, removed when it ends."""
    gpus: int = 0
    """GPUs that CUDA programs can see on this node."""
    nodes: int = 1
    node_rank: int = 0
    required: frozenset[str] = frozenset()
    """What the caller said must be here, of registry.NEEDS."""
    requested_gpus: int | None = None
    """How many GPUs the caller said there must be; None if nothing was said."""
    burn: float = 0.0
    """Seconds that a burn-in may take; 0 for none."""
    meeting: tuple[str, int] | None = None
    """Host and port where the nodes meet; None on a single node."""
    seen: Seen | None = None
    """None if no engine said anything."""
    started: float | None = None
    """When the container started, in Unix time; None to ask the kernel."""
    root: Path = Path("/")
    stack: Path = STACK
    site: Path = Path(sysconfig.get_path("purelib"))
    launcher: tuple[str, ...] = (sys.executable, "-P", "-m", "stackrt.launch")

    def lacks(self, need: str) -> str:
        """Why something that checks need is not here; empty if it is."""
        if need == "gpu" and self.gpus < 1:
            return "no GPU is visible here"
        if need == "multi-gpu" and self.gpus < 2:
            return "only one GPU is visible here" if self.gpus else "no GPU is visible here"
        if need == "multi-node" and self.nodes < 2:
            return "this is a single node"
        return ""


def read_nodes(env: Mapping[str, str]) -> tuple[int, int, tuple[str, int] | None]:
    """How many nodes there are, which one this is, and where they meet: what the launcher tells a rank.

    Raises:
        FactsError: The launcher has several ranks on a node; the suite is one.
    """
    nodes = int(env.get("STACK_NODES") or 1)
    if nodes < 2:
        return 1, 0, None
    if env.get("WORLD_SIZE") != str(nodes):
        raise FactsError(
            "the suite is one rank on each node: start it with `python -m stackrt.launch` and STACK_PROCS=1"
        )
    return nodes, int(env["STACK_NODE_RANK"]), (env["MASTER_ADDR"], int(env["MASTER_PORT"]))


def read_image(stack: Path = STACK) -> ImageFacts | None:
    """Read image.json; None where there is none.

    Raises:
        FactsError: It is not what this suite understands.
    """
    file = stack / FACTS.name
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FactsError(f"{file}: cannot be read: {error}") from None
    if not isinstance(row, dict) or row.get("schema") != FACTS_SCHEMA:
        raise FactsError(f"{file}: schema: must be {FACTS_SCHEMA}; the image and its suite are not of one build")
    return _make(ImageFacts, row, str(file))


def read_seen(text: str) -> Seen:
    """Read what --seen was given.

    Raises:
        FactsError: It is not the JSON that `stackctl test` makes.
    """
    try:
        row = json.loads(text)
    except ValueError as error:
        raise FactsError(f"--seen: is not JSON: {error}") from None
    return _make(Seen, row if isinstance(row, dict) else {}, "--seen")


def _make(kind: type[T], row: dict[str, Any], where: str) -> T:
    """A dataclass from a JSON object; keys that it does not know are for a later version."""
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in row:
            if field.default is not MISSING:
                continue
            raise FactsError(f"{where}: {field.name}: is absent")
        value = row[field.name]
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
