"""Sharded training in tests: one small model with weights, and how it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.trainers import Process, Trainers

PROGRAM = "stackrt.train.lm transformers.models.llama.modeling_llama"
PROBE = "tests.support.lm_probe transformers.models.llama.modeling_llama"
SETTINGS = ["--context", "16", "--batch-size", "8", "--micro-batch", "2", "--steps", "20", "--warmup", "5",
            "--lr", "1e-3", "--log-every", "5", "--eval-every", "10", "--eval-tokens", "1000",
            "--checkpoint-every", "10", "--keep", "9"]  # fmt: skip


def config(**changed: int) -> dict[str, Any]:
    """A Llama of 60,000 parameters whose output layer is not its embedding."""
    return {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "max_position_embeddings": 64,
            "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": None} | changed  # fmt: skip


def start(trainers: Trainers, ranks: int, argv: list[str], logs: Path, **env: str) -> list[Process]:
    return trainers.start_ranks(1, ranks, argv, logs, **({"TEST_PROGRAM": PROGRAM} | env))


def run(trainers: Trainers, ranks: int, argv: list[str], logs: Path, **env: str) -> str:
    """Run to the good end; returns what rank 0 printed."""
    processes = start(trainers, ranks, argv, logs, **env)
    codes = [process.wait() for process in processes]
    assert codes == [0] * ranks, "\n".join(process.output for process in processes)
    assert "arning" not in processes[0].output
    return processes[0].output


def result(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
