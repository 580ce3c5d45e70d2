"""Hugging Face's GPT-2 from its configuration, in a loop of your own: python gpt2_loop.py [TEXT]

Nothing is downloaded: the weights start at random, and a token is a byte. Without TEXT it learns this program.
"""

import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

CONTEXT, BATCH, STEPS = 64, 8, 40

text = torch.tensor(list(Path(sys.argv[1] if len(sys.argv) > 1 else __file__).read_bytes()))
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=256, n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
model.train()
for step in range(STEPS):
    starts = torch.randint(len(text) - CONTEXT, (BATCH,))
    tokens = torch.stack([text[start : start + CONTEXT] for start in starts.tolist()]).to(device)
    loss = model(input_ids=tokens, labels=tokens).loss  # the model shifts the labels by one itself
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if step in (0, STEPS - 1):
        print(f"step {step + 1} loss {loss.item():.3f}")
