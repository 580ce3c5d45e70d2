"""How fast our trainers train against the Trainer of transformers and a loop as nanoGPT's.

    python bench/training.py [--runs N] [--json] [--check]

The same GPT-2, text and batch, by two ranks of a thread each under our launcher, one way after another in each round.
Of each the fastest stretch of five steps counts, since other work on the machine only adds. `lm` keeps a copy of the
model on each rank, as the others do. Needs two CPUs, and the trainers' packages.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import common

HERE = Path(__file__).parent
IMAGES = HERE.parent / "images"
TEXT = IMAGES / "stackrt" / "train" / "data" / "shakespeare.txt"
CONFIG = {"model_type": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 192, "n_positions": 256, "vocab_size": 256,
          "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": None,
          "eos_token_id": None}  # fmt: skip
RANKS, STEPS = 2, 20
BATCH = 8
"""Sequences a rank."""
STRETCH = 5
"""Steps between two looks at the clock, and at the loss."""
OURS, THEIRS = ("gpt", "lm"), ("trainer", "loop")
LEAST_RATIO = 1.0
NOISE = 0.1
"""How far two runs stray on a shared machine: with --check the bound is held within it."""


def rates(way: str, folder: Path) -> list[float]:
    """Tokens a second of each stretch, but for the first, in which memory is allocated."""
    rest = ["--context", str(CONFIG["n_positions"]), "--steps", str(STEPS), "--threads", "1", "--log-every",
            str(STRETCH), "--eval-every", "1000", "--eval-tokens", "1000", "--checkpoint-every", "1000", "--out",
            str(folder / way)]  # fmt: skip
    shape = [
        f"--{name}={CONFIG[key]}" for name, key in (("layers", "n_layer"), ("heads", "n_head"), ("width", "n_embd"))
    ]
    ways = {
        "gpt": ["-m", "stackrt.train.gpt", *shape, "--batch-size", str(BATCH), "--sample-tokens", "0", *rest],
        "lm": ["-m", "stackrt.train.lm", "--model", str(folder), "--batch-size", str(BATCH * RANKS), "--micro-batch",
               str(BATCH), "--replicate", str(RANKS), *rest],
    }  # fmt: skip
    found = folder / f"{way}.json"
    words = ways.get(way) or [str(HERE / "peers.py"), way, str(folder / "config.json"), str(TEXT),
                              *map(str, (BATCH, STEPS, STRETCH, found))]  # fmt: skip
    env = {name: value for name, value in os.environ.items() if not name.startswith("STACK_")}
    env |= {"PYTHONPATH": str(IMAGES), "STACK_PROCS": str(RANKS), "STACK_DEVICE": "cpu", "STACK_OUT": str(folder),
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # fmt: skip
    command = [sys.executable, "-m", "stackrt.launch", "--", sys.executable, *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{way} did not run: {done.stdout}{done.stderr}")
    if way in THEIRS:
        measured: list[float] = json.loads(found.read_text())
        return measured[1:]
    rows = [json.loads(line) for line in (folder / way / "metrics.jsonl").read_text().splitlines()]
    return [row["tokens_per_second"] for row in rows if row["step"] > STRETCH]


def measure(runs: int) -> dict[str, list[float]]:
    """The fastest stretch of each round, by way."""
    fastest: dict[str, list[float]] = {way: [] for way in (*OURS, *THEIRS)}
    for _ in range(runs):
        for way, kept in fastest.items():
            with tempfile.TemporaryDirectory() as name:
                (Path(name) / "config.json").write_text(json.dumps(CONFIG))
                kept.append(max(rates(way, Path(name))))
    return fastest


def main() -> int:
    """Measure, print, and with --check compare with the bound."""
    options = common.parser(__doc__, 2).parse_args()
    fastest = measure(options.runs)
    best = {way: max(found) for way, found in fastest.items()}
    ratios = {f"{ours} against {theirs}": best[ours] / best[theirs] for ours in OURS for theirs in THEIRS}
    lines = [
        f"tokens a second of {RANKS} ranks, fastest stretch of {options.runs} rounds",
        *(f"  {way:8} {rate:9,.0f}   (from {min(fastest[way]):,.0f})" for way, rate in best.items()),
        *(
            f"{names.replace('/', ' against '):22} {ratio:.2f} x (bound {LEAST_RATIO} x)"
            for names, ratio in ratios.items()
        ),
    ]
    found = {"tokens_per_second": best, "ratios": ratios}
    return common.conclude(options, found, lines, ok=min(ratios.values()) >= LEAST_RATIO * (1 - NOISE))


if __name__ == "__main__":
    sys.exit(main())
