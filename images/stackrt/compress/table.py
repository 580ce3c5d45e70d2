"""What the models cost and are worth, as lines for a person. Standard library only."""

from collections.abc import Mapping, Sequence
from typing import Any

ORIGINAL = "original"


def changes(rows: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, the original's first, each with its size and loss beside the original's."""
    first = rows[ORIGINAL]
    found = []
    for name, row in rows.items():
        ratio, change = row["bytes"] / first["bytes"], row["loss"] / first["loss"] - 1
        found.append({"name": name, **row, "size_ratio": ratio, "loss_change": change})
    return found


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table, its numbers under one another; latencies are of batches of 1 and of 32."""
    head = ("model", "size", "of it", "parameters", "not 0", "loss", "change", "1: p50", "p99", "32: p50", "p99")
    cells = [head]
    for row in rows:
        latency = row["latency_ms"]
        cells.append((
            row["name"], f"{row['bytes'] / 1e6:,.2f} MB", f"{row['size_ratio']:.2f}", f"{row['parameters']:,}",
            f"{row['nonzero'] / row['parameters']:.0%}", f"{row['loss']:.4f}", f"{row['loss_change']:+.2%}",
            *(f"{latency[size][share]:,.2f} ms" for size in ("1", "32") for share in ("p50", "p99")),
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
