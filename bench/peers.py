"""What `training.py` holds our trainers against: the Trainer of transformers, and a loop as nanoGPT's.

    python bench/peers.py trainer|loop CONFIG TEXT BATCH STEPS STRETCH FILE    on each rank, by a launcher

Both train the GPT-2 of a `config.json` on the bytes of a text, with DDP, AdamW and clipping; rank 0 writes the tokens a
second of each stretch of steps to FILE.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments


class Clock:
    """Tokens a second of each stretch, over all ranks.

    Args:
        stretch: Steps between two looks at the clock, and at the loss.
        tokens_per_step: Of all ranks.
    """

    def __init__(self, stretch: int, tokens_per_step: int) -> None:
        self.stretch = stretch
        self.tokens_per_step = tokens_per_step
        self.rates: list[float] = []
        self.mark = time.perf_counter()

    def after(self, step: int) -> None:
        """Call after step 1, 2, …."""
        if step % self.stretch == 0:
            now = time.perf_counter()
            self.rates.append(self.stretch * self.tokens_per_step / (now - self.mark))
            self.mark = now


def loop(config: GPT2Config, text: Tensor, batch: int, steps: int, clock: Clock) -> None:
    """nanoGPT's `train.py`, without its options: random windows, and nothing that it does not need."""
    torch.manual_seed(dist.get_rank())
    context = config.n_positions
    model = DistributedDataParallel(GPT2LMHeadModel(config), gradient_as_bucket_view=True)
    held = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in held if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in held if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    clock.mark = time.perf_counter()
    for step in range(1, steps + 1):
        starts = torch.randint(len(text) - context, (batch,))
        inputs = torch.stack([text[start : start + context] for start in starts]).long()
        targets = torch.stack([text[start + 1 : start + 1 + context] for start in starts]).long()
        logits = model(input_ids=inputs).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % clock.stretch == 0:
            loss.item()
        clock.after(step)


def trainer(config: GPT2Config, text: Tensor, batch: int, steps: int, clock: Clock) -> None:
    """Hugging Face's Trainer, with its own defaults wherever they do not make it train something else."""

    def began(*_: object, **__: object) -> None:
        clock.mark = time.perf_counter()

    def stepped(_: object, __: object, state: Any, *___: object, **____: object) -> None:
        clock.after(state.global_step)

    watch = type("Watch", (TrainerCallback,), {"on_train_begin": began, "on_step_end": stepped})
    pieces = [{"input_ids": piece, "labels": piece} for piece in torch.split(text.long(), config.n_positions)[:-1]]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=1e-3, weight_decay=0.1,
            adam_beta2=0.95, logging_steps=clock.stretch, save_strategy="no", report_to="none", disable_tqdm=True,
            use_cpu=True, ddp_backend="gloo",
        )  # fmt: skip
        Trainer(GPT2LMHeadModel(config), arguments, train_dataset=pieces, callbacks=[watch()]).train()


def main() -> None:
    """Train, and write what was measured."""
    way, config_file, text_file, batch, steps, stretch, found = sys.argv[1:]
    torch.set_num_threads(1)
    config = GPT2Config(**json.loads(Path(config_file).read_text()), use_cache=False, attn_implementation="sdpa")
    text = torch.frombuffer(bytearray(Path(text_file).read_bytes()), dtype=torch.uint8)
    clock = Clock(int(stretch), int(batch) * config.n_positions * int(os.environ["WORLD_SIZE"]))
    if way == "loop":
        dist.init_process_group("gloo")
        loop(config, text, int(batch), int(steps), clock)
        # When the model has gone: what DDP has of a destroyed group joins its threads, and may wait for ever.
        dist.destroy_process_group()
    else:
        trainer(config, text, int(batch), int(steps), clock)
    if os.environ["RANK"] == "0":
        Path(found).write_text(json.dumps(clock.rates))


if __name__ == "__main__":
    main()
