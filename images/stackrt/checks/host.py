"""What the report says of a node: kernel, processors, memory, limits, and its GPUs by nvidia-smi."""

import csv
import os
import platform
import resource
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from stackrt.launch import cpus

LIMITS = ("nofile", "memlock", "stack", "nproc", "core")
GPU_FIELDS = ("index", "uuid", "name", "memory.total", "driver_version", "pci.bus_id", "mig.mode.current")
SMI_SECONDS = 30


def facts() -> dict[str, Any]:
    """Everything of this node that a result may depend on. What cannot be read is null or empty."""
    devices = _gpus()
    return {
        "host": os.environ.get("STACK_HOST") or socket.gethostname(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": cpus.usable().at_once,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "cgroup": _cgroup(),
        "ulimits": {name: _limit(name) for name in LIMITS},
        "user": {"uid": os.getuid(), "gid": os.getgid()},
        "driver": devices[0]["driver_version"] if devices else None,
        "devices": devices,
        "topology": _smi("topo", "--matrix").strip() if devices else "",
        "network": sorted(entry.name for entry in _entries(Path("/sys/class/net"))),
        "infiniband": sorted(entry.name for entry in _entries(Path("/sys/class/infiniband"))),
    }


def _limit(name: str) -> dict[str, int | None]:
    """Soft and hard limit; null for no limit."""
    soft, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
    return {key: None if value == resource.RLIM_INFINITY else value for key, value in (("soft", soft), ("hard", hard))}


def _cgroup() -> dict[str, str | None]:
    """The limits of control groups, version 2, as the kernel words them; null where there are none."""
    names = {"memory_max": "memory.max", "cpu_max": "cpu.max", "pids_max": "pids.max"}
    return {key: _text(Path("/sys/fs/cgroup") / file) for key, file in names.items()}


def _gpus() -> list[dict[str, str]]:
    rows = csv.reader(_smi(f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader").splitlines())
    names = [name.replace(".", "_") for name in GPU_FIELDS]
    return [dict(zip(names, (cell.strip() for cell in row), strict=True)) for row in rows if len(row) == len(names)]


def _smi(*words: str) -> str:
    """What nvidia-smi prints; empty if it is absent, fails or hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
