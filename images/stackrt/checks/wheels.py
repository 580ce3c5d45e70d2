"""NVIDIA's wheels in an environment: their libraries and programs, and the versions that these report."""

import ctypes
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Wheel:
    """An installed wheel of NVIDIA's.

    Attributes:
        name: Without CUDA's major version: `nvidia-cudnn`.
        version: `9.20.0.48`.
        files: All its files that should be there.
    """

    name: str
    version: str
    files: tuple[Path, ...]

    def libraries(self, pattern: str = "*.so*") -> list[Path]:
        """Its shared libraries whose file names match."""
        return [file for file in self.files if fnmatch(file.name, "*.so*") and fnmatch(file.name, pattern)]


@cache
def knowledge() -> dict[str, Any]:
    """What cuda.toml says."""
    return tomllib.loads((Path(__file__).parent / "cuda.toml").read_text(encoding="utf-8"))


def installed(site: Path) -> dict[str, Wheel]:
    """The wheels named nvidia-* of an environment, by their names without CUDA's major version."""
    found = {}
    for one in metadata.distributions(path=[str(site)]):
        name = re.sub(r"-cu\d+$", "", (one.metadata["Name"] or "").lower())
        if name.startswith("nvidia-"):
            files = tuple(Path(str(one.locate_file(file))) for file in one.files or ())
            found[name] = Wheel(name, one.version, files)
    return found


def open_alone(library: Path) -> str:
    """Open a library in a process of its own, where nothing else is loaded; why it does not open, or empty."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(str(library), mode=os.RTLD_NOW)
        except OSError as error:
            os.write(writer, str(error).encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        problem = said.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return problem or (f"loading it ends the process ({code})" if code else "")


def may_fail(library: Path, problem: str) -> bool:
    """Whether cuda.toml expects a library not to open for this reason."""
    return any(fnmatch(library.name, row["library"]) and row["needs"] in problem for row in knowledge()["optional"])


def reported(wheels: dict[str, Wheel], paths: Sequence[Path] = ()) -> Iterator[tuple[Wheel, Path, str]]:
    """What the libraries themselves say of their versions.

    Args:
        wheels: The installed ones.
        paths: Libraries to ask instead of the wheels' own files: those that a process has loaded.

    Yields:
        Wheel, library, and the version as far as the library tells it: `9.20.0`.
    """
    for row in knowledge()["version"]:
        wheel = wheels.get(row["wheel"])
        if wheel:
            for library in [path for path in paths or wheel.files if fnmatch(path.name, row["library"])]:
                yield wheel, library, ".".join(map(str, _ask(library, row)))


def _ask(library: Path, row: dict[str, Any]) -> list[int]:
    function = getattr(ctypes.CDLL(str(library)), row["function"])
    first, second = ctypes.c_int(), ctypes.c_int()
    if row["form"] == "property":
        numbers = []
        for kind in range(3):
            function(ctypes.c_int(kind), ctypes.byref(first))
            numbers.append(first.value)
        return numbers
    if row["form"] == "pair":
        function(ctypes.byref(first), ctypes.byref(second))
        return [first.value, second.value]
    if row["form"] == "number":
        function.restype = ctypes.c_size_t
        number = function()
    else:
        function(ctypes.byref(first))
        number = first.value
    numbers = []
    for unit in row["scale"]:
        numbers.append(number // unit)
        number %= unit
    return numbers
