"""Train on the full Fashion-MNIST and record the test accuracy of each trainer of pictures.

    stackctl data fetch fashion-mnist
    python scripts/fashion_mnist.py                          all of them, an hour and a half on two cores
    python scripts/fashion_mnist.py cnn --to accuracy.json   one, and a record of it

Two ranks in containers each, and one process of `keras`. Fails where a trainer stays below what it must reach.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
STACKCTL = str(Path(sys.executable).parent / "stackctl")


class Row(NamedTuple):
    """A trainer: the test accuracy that it must reach, and its options beside the set."""

    least: float
    options: tuple[str, ...]
    procs: int = 2


COMMON = ("--steps", "4300", "--lr", "0.05", "--schedule", "cosine", "--eval-every", "430", "--log-every", "430")
"""Ten epochs of the 55,000 pictures that are left to train on."""

ROWS = {"cnn": Row(0.90, COMMON), "horovod-torch": Row(0.90, COMMON), "horovod-tf": Row(0.90, COMMON)}
ROWS["keras"] = Row(0.91, ("--epochs", "12", "--dropout", "0.3"), procs=1)


def train(workload: str, out: Path) -> dict[str, float | str]:
    """Run one trainer to its end; what its `result.json` says."""
    argv = [STACKCTL, "run", workload, "--procs", str(ROWS[workload].procs), "--on", "compose", "--out", str(out)]
    subprocess.run([*argv, "--", "--data", "fashion-mnist", *ROWS[workload].options], cwd=ROOT, check=True)
    told: dict[str, float | str] = json.loads((out / "result.json").read_text())
    return told


def main() -> int:
    """Train those that are named, print a table, and say whether all have reached their accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(ROWS)}; default: all")
    parser.add_argument("--to", type=Path, metavar="FILE", help="where a JSON record goes")
    given = parser.parse_args()
    if unknown := [name for name in given.workloads if name not in ROWS]:
        parser.error(f"no trainer of pictures is named {unknown[0]!r}; there are {', '.join(ROWS)}")
    record = {}
    for workload in given.workloads or ROWS:
        with tempfile.TemporaryDirectory() as folder:
            told = train(workload, Path(folder) / "out")
        names = ("accuracy", "validation_accuracy", "samples_per_second", "seconds", "params_sha256", "data_sha256")
        record[workload] = {"least": ROWS[workload].least, **{name: told[name] for name in names}}
    for workload, row in record.items():
        reached = "ok" if float(row["accuracy"]) >= float(row["least"]) else "TOO LOW"
        print(
            f"{workload:14}  test accuracy {row['accuracy']:.4f}, at least {row['least']:.2f}: {reached}; "
            f"{row['samples_per_second']:,.0f} pictures a second"
        )
    if given.to:
        given.to.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return int(any(float(row["accuracy"]) < float(row["least"]) for row in record.values()))


if __name__ == "__main__":
    sys.exit(main())
