"""What a model is worth: loaded in a fresh process, one after another, its loss and its latency by turns.

    python -m stackrt.compress.measure ORDER.json ANSWER.json

All models are measured in one process, by one clock, in turns: what else the machine does meanwhile meets them alike.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from stackrt.compress import fresh
from stackrt.compress.latency import BATCHES, by_turns
from stackrt.finished import quantized
from stackrt.finished.language import open_model


def file_bytes(path: Path) -> int:
    """The size of a model's weights on disk."""
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


@torch.no_grad()
def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Mean loss over all windows, in nats a token."""
    total, count = 0.0, 0
    for x, y in zip(torch.split(inputs, 32), torch.split(targets, 32), strict=True):
        logits = model(input_ids=x.long()).logits
        total += float(F.cross_entropy(logits.float().flatten(0, 1), y.long().flatten(), reduction="sum").double())
        count += y.numel()
    return total / count


@torch.no_grad()
def seconds_of(model: nn.Module, inputs: Tensor) -> float:
    """One forward pass."""
    began = time.perf_counter()
    logits = model(input_ids=inputs).logits
    float(logits[-1, -1, -1])  # waits for the device
    return time.perf_counter() - began


def count(model: nn.Module) -> tuple[int, int]:
    """Parameters of a model, and how many of them are not zero."""
    tables = [module.qdata for module in model.modules() if isinstance(module, quantized.Int8Embedding)]
    held: list[Any] = [*tables, *(getattr(parameter, "qdata", parameter) for parameter in model.parameters())]
    once = {tensor.data_ptr(): tensor for tensor in held}.values()  # a tied output layer has the embeddings' numbers
    return sum(tensor.numel() for tensor in once), sum(int(tensor.count_nonzero()) for tensor in once)


def measure(order: dict[str, Any]) -> dict[str, Any]:
    """Open the models of an order, and measure each.

    Raises:
        BadInputError: One cannot be opened.
    """
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    device = torch.device(order["device"])
    windows: dict[str, Tensor] = torch.load(order["windows"], weights_only=True)
    inputs, targets = windows["inputs"].to(device), windows["targets"].to(device)
    models: dict[str, nn.Module] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, path in order["models"].items():
        models[name] = open_model(Path(path)).model.to(device)
        parameters, nonzero = count(models[name])
        rows[name] = {"bytes": file_bytes(Path(path)), "parameters": parameters, "nonzero": nonzero,
                      "loss": loss_of(models[name], inputs, targets), "latency_ms": {}}  # fmt: skip
    for size in BATCHES:
        batch = inputs[torch.arange(size) % len(inputs)].long()

        def seconds(model: nn.Module, batch: Tensor = batch) -> float:
            return seconds_of(model, batch)

        for name, latency in by_turns(models, seconds, order["repeats"]).items():
            rows[name]["latency_ms"][str(size)] = latency
    return {"models": rows, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    sys.exit(fresh.answer(measure))
