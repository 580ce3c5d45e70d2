"""The Trainer of Hugging Face transformers, as it is: under a launcher it trains with all ranks.

stackctl run --nodes 2 --procs 2 -- python trainer.py [TEXT]
"""

import sys
import tempfile
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

CONTEXT = 64

text = torch.tensor(list(Path(sys.argv[1] if len(sys.argv) > 1 else __file__).read_bytes()))
pieces = [{"input_ids": piece, "labels": piece} for piece in text.unfold(0, CONTEXT, 16)]
set_seed(0)
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=256, n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
)
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        max_steps=40,
        per_device_train_batch_size=4,
        learning_rate=3e-3,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    Trainer(model, arguments, train_dataset=pieces).train()
