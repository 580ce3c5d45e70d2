"""What each kind of GPU should reach: skus.toml."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sku:
    """The figures of one kind of GPU; 0 where there is none. skus.toml says what they mean."""

    name: str
    host_gb_per_s: float = 0
    peer_gb_per_s: float = 0
    bf16_tflop_per_s: float = 0
    bf16_peak_tflop_per_s: float = 0
    all_reduce_gb_per_s: float = 0
    all_reduce_gpus: int = 0
    all_reduce_gib: int = 0


@cache
def table() -> tuple[Sku, ...]:
    """All of them, in the order of the file."""
    rows: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "skus.toml").read_text(encoding="utf-8"))["gpu"]
    return tuple(Sku(**row) for row in rows)


def of(name: str) -> Sku:
    """The figures for a GPU, by the name that the driver gives it; one without figures if it is not in the table."""
    return next((sku for sku in table() if sku.name == name), Sku(name))
