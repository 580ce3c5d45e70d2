"""Small wheels of NVIDIA's kind in a folder of packages: real shared libraries, compiled from a few lines of C."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path


def install(site: Path, name: str, version: str, libraries: Mapping[str, str], others: Mapping[str, str] = {}) -> Path:
    """Install a wheel and return the folder of its files.

    Args:
        libraries: File name -> C source; each is compiled to a shared library.
        others: Name -> text of files that are no libraries.
    """
    folder = site / "nvidia" / name.removeprefix("nvidia-")
    folder.mkdir(parents=True)
    for file, source in libraries.items():
        compile_library(folder / file, source)
    for file, text in others.items():
        (folder / file).write_text(text)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file.relative_to(site)},,\n" for file in sorted(folder.iterdir())))
    return folder


def compile_library(file: Path, source: str, *needed: Path, soname: str = "") -> None:
    """Compile C to a shared library that needs others."""
    argv = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(file), "-x", "none", *map(str, needed)]
    if soname:
        argv += [f"-Wl,-soname,{soname}"]
    subprocess.run(argv, input=source, text=True, check=True)
