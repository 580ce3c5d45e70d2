"""Train a GPT-2 on text. Read it top to bottom; the modules beside it hold text, checkpoints, reports and ranks.

    python -m stackrt.train.gpt                                              one process
    python -m stackrt.train.gpt --steps 20 --layers 2 --width 64 --heads 2   ... and tiny
    torchrun --nproc-per-node 4 -m stackrt.train.gpt --data my.txt           four ranks on one node
    stackctl run gpt --nodes 2 --procs 2 -- --steps 200                      two nodes of two ranks
    stackctl run gpt -- --init my-gpt2 --data my.txt --export tuned          go on with the weights of a folder

The same seed and number of ranks give the same weights, bit for bit, however the ranks are spread over nodes.
"""

import os
import sys

from stackrt.launch import cpus
from stackrt.train import command_line
from stackrt.train import options as gpt_options

if __name__ == "__main__":
    command_line.check_early(gpt_options.parse, sys.argv[1:], ["torch"])  # costs 0.1 s, not the import of torch

os.environ.update(cpus.sleeping_soon())  # also without a launcher
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything here is local; a look at the network would only delay
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic

import math
import random
import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stackrt.networks import gpt2
from stackrt.train import checkpoint, models, prepared, report, resume, tracking
from stackrt.train import text as texts
from stackrt.train.command_line import DEFAULT_TEXT, describe, flag
from stackrt.train.errors import INTERRUPTED, TrainerError
from stackrt.train.options import Options
from stackrt.train.process import build_optimizer, ended, keep, learning_rate, leave, say, set_up_compute
from stackrt.train.ranks import Ranks, Stop, join

# ---------------------------------------------------------------------------------------------------------------------
# Text


def load_corpus(o: Options, ranks: Ranks) -> tuple[texts.Tokenizer, Path | str | None, texts.Corpus]:
    """Read, split and tokenize the text on every rank, and see that all ranks have the same.

    Returns:
        The tokenizer, where it is from (a folder, its definition, or None for bytes), and the text.
    """
    tokenizer: texts.Tokenizer = texts.ByteTokenizer()
    source: Path | str | None = None
    if prepared.is_prepared(o.data):
        with ranks.together():
            tokenizer, corpus = prepared.load(o.data, o.val_fraction, o.context, o.eval_tokens, o.vocab_size)
        source = o.data[0]
    else:
        with ranks.together():
            text = texts.read_text(o.data)
            if o.tokenizer not in gpt_options.TOKENIZERS:
                tokenizer = texts.tokenizer_in(source := Path(o.tokenizer))
                texts.check_vocabulary(tokenizer, f"--tokenizer {source}", o.vocab_size, f"--init {o.init}")
        if o.tokenizer == "bpe":
            learned = texts.train_bpe(texts.split_text(text, o.val_fraction)[0], o.vocab_size) if ranks.first else ""
            tokenizer = texts.BpeTokenizer(source := ranks.from_first(learned))
        with ranks.together():
            corpus = texts.tokenize(text, tokenizer, o.val_fraction, o.context)
    texts.see_that_same(corpus.digest, ranks)
    return tokenizer, source, corpus


# ---------------------------------------------------------------------------------------------------------------------
# Model


def build_model(o: Options) -> nn.Module:
    """A GPT-2 from its Hugging Face configuration alone, with random weights."""
    values = model_config(o)
    return gpt2.GPT2LMHeadModel(values) if gpt2.computes(values) else build_with_transformers(values)


def model_config(o: Options) -> models.Config:
    """What of the options and of the model of `--init` makes a GPT2Config."""
    known = models.read_config(Path(o.init), f"--init {o.init}") if o.init else {}
    values: models.Config = {"n_positions": o.context, "bos_token_id": None, "eos_token_id": None} | models.plain(known)
    values |= {"vocab_size": o.vocab_size, "n_layer": o.layers, "n_head": o.heads, "n_embd": o.width,
               "embd_pdrop": o.dropout, "resid_pdrop": o.dropout, "attn_pdrop": o.dropout,
               "use_cache": False}  # fmt: skip
    return values


def build_with_transformers(values: models.Config) -> nn.Module:
    """Hugging Face's own class: for a published variant, and for what needs more than its logits."""
    from transformers.models.gpt2.configuration_gpt2 import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

    model: nn.Module = GPT2LMHeadModel(GPT2Config(**values, attn_implementation="sdpa"))
    return model


def token_losses(model: nn.Module, inputs: Tensor, targets: Tensor, dtype: str) -> Tensor:
    """Cross-entropy of each next token, in nats.

    Args:
        model: Returns an object with `logits`, [batch, context, vocabulary].
        inputs: Token ids, [batch, context].
        targets: The ids that follow each of them, [batch, context].
        dtype: `bf16` computes by autocast; the loss itself is always fp32.

    Returns:
        Losses, [batch * context].
    """
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16) if dtype == "bf16" else nullcontext():
        logits = model(input_ids=inputs.to(device)).logits
    return F.cross_entropy(logits.float().flatten(0, 1), targets.to(device).flatten(), reduction="none")


@torch.no_grad()
def evaluate(model: nn.Module, windows: texts.Batch, o: Options, ranks: Ranks) -> float:
    """Mean validation loss over all windows, in nats a token; the windows are dealt to the ranks in turn."""
    model.eval()
    total, count = 0.0, 0
    inputs, targets = (side[ranks.rank :: ranks.world_size] for side in windows)
    for x, y in zip(torch.split(inputs, o.batch_size), torch.split(targets, o.batch_size), strict=True):
        total += float(token_losses(model, x.long(), y.long(), o.dtype).double().sum())
        count += y.numel()
    model.train()
    return ranks.mean(total, count)


@torch.no_grad()
def sample(model: nn.Module, prompt: Tensor, o: Options, vocabulary: int) -> list[int]:
    """Generate `--sample-tokens` ids after a prompt of shape [tokens], drawn at temperature 0.8."""
    model.eval()
    generator = torch.Generator().manual_seed(texts.mix(o.seed, "sample"))
    ids = prompt.long().tolist()
    for _ in range(o.sample_tokens):
        inputs = torch.tensor([ids[-o.context :]], device=next(model.parameters()).device)
        logits = model(input_ids=inputs).logits[0, -1, :vocabulary].float().cpu()
        ids.append(int(torch.multinomial((logits / 0.8).softmax(-1), 1, generator=generator)))
    return ids


# ---------------------------------------------------------------------------------------------------------------------
# Identity


def fingerprint(o: Options, corpus: texts.Corpus, ranks: Ranks) -> dict[str, Any]:
    """What a resumed run must share to end bit-equal to an unbroken one; also `steps`, where the schedule ends."""
    names = ("layers", "heads", "width", "context", "dropout", "vocab_size", "tokenizer", "val_fraction", "steps",
             "seed", "batch_size", "grad_accum", "lr", "min_lr", "warmup", "weight_decay", "clip", "dtype")  # fmt: skip
    same = {flag(name): getattr(o, name) for name in names}
    same |= {"--init": o.init or None, "--data": corpus.digest}
    same |= {"WORLD_SIZE": ranks.world_size, "STACK_DEVICE": ranks.device.type}
    return {name: value for name, value in same.items() if name not in corpus.may_change}


# ---------------------------------------------------------------------------------------------------------------------
# The run


def run(o: Options) -> int:  # noqa: PLR0912, PLR0915 - one page, read once, top to bottom
    """Train, and return the exit code: 0, or 128 + the signal that asked to stop."""
    began = time.perf_counter()
    ranks = join()
    threads = set_up_compute(o.threads, o.seed, ranks)
    tokenizer, tokenizer_from, corpus = load_corpus(o, ranks)
    wanted = fingerprint(o, corpus, ranks)
    with ranks.together():
        if ranks.first:
            report.prepare_folder(o.out, export=o.export)
    resumed = resume.find(o.out / "checkpoints", o.resume, ranks, wanted, say)

    # Model: DDP gives every rank the weights of rank 0
    model = build_model(o).to(ranks.device)
    if resumed:
        model.load_state_dict(resumed.state["model"])
    elif o.init:
        from stackrt.train import weights  # as below: a run that needs it not starts half a second earlier

        with ranks.together():
            weights.load(model, Path(o.init))
    ddp = DistributedDataParallel(model, process_group=ranks.gradients, gradient_as_bucket_view=True)
    keep(ddp)
    optimizer = build_optimizer(model.parameters(), o)

    # Data
    windows = corpus.windows(o.context, o.seed)
    val_windows = texts.validation_windows(corpus.val, o.context, o.eval_tokens)
    tokens_per_step = o.batch_size * o.context * o.grad_accum * ranks.world_size

    # DDP regroups its gradient buckets after its first backward pass, and the sum over ranks depends on the grouping. A
    # pass before the first step lets every process, new or resumed, train with the final buckets from its first step.
    token_losses(ddp, *windows.batch(0, o.batch_size), o.dtype).mean().backward()  # type: ignore[no-untyped-call]
    optimizer.zero_grad()

    # State: from here on, nothing may draw a random number that an unbroken run would not draw
    random.seed(texts.mix(o.seed, "python", ranks.rank))
    torch.manual_seed(texts.mix(o.seed, "dropout", ranks.rank))
    start, read, history = 0, 0, dict[str, Any]()  # steps done, and sequences that they read
    if resumed:
        start, read, history = (resumed.state[name] for name in ("step", "sequences", "history"))
        optimizer.load_state_dict(resumed.state["optimizer"])
        resume.set_random_state(resumed.state["rng"], ranks)
        resumed.state.clear()  # a copy of all weights and moments

    # Report
    metrics: report.Metrics | None = None
    parameters = sum(p.numel() for p in model.parameters())
    origin = f"from {o.init}" if o.init else f"preset {o.preset}"
    bigram = texts.bigram_loss(corpus.train, corpus.val[: val_windows.inputs.numel() + 1], tokenizer.size)
    with ranks.together():
        if ranks.first:
            metrics = report.Metrics(o.out, start if resumed else -1)
            tracker = tracking.Tracker(o.track, o.out, describe(o), say, resumed=bool(resumed))
            shipped = o.data == (DEFAULT_TEXT,)
            source = "ten plays by Shakespeare, shipped with this trainer" if shipped else ", ".join(map(str, o.data))
            say(f"model   GPT-2, {origin}: {o.layers} layers, {o.heads} heads, width {o.width}, "
                f"context {o.context}; {parameters:,} parameters, {o.dtype}")  # fmt: skip
            say("text    {}; {:,} tokens to train on, {:,} to validate ({}, {:,} kinds)".format(
                source, *corpus.tokens, tokenizer.name.partition("-")[0], tokenizer.size))  # fmt: skip
            say(f"ranks   {ranks.world_size} on {ranks.device.type}, {threads} CPU threads each; {tokens_per_step:,} "
                f"tokens a step, seed {o.seed}")  # fmt: skip
            say(f"bigram  validation loss {bigram:.3f}: a model of the same tokens that sees one of them at a time")
            say(f"output  {o.out}" + (f", going on from {resumed.path} after step {start}" if resumed else ""))

    def sequences(step: int) -> int:
        return read + (step - start) * tokens_per_step // o.context

    def save(step: int) -> None:
        states = ranks.gather(resume.random_state(ranks))
        with ranks.together():
            if metrics:
                metrics.sync()
                state = {"step": step, "sequences": sequences(step), "fingerprint": wanted,
                         "options": describe(o), "history": history, "rng": states,
                         "model": model.state_dict(), "optimizer": optimizer.state_dict()}  # fmt: skip
                checkpoint.save(o.out / "checkpoints", step, state, o.keep)

    def log(step: int, row: report.Row) -> None:
        if step % o.eval_every == 0 or step == o.steps:
            row["val_loss"] = evaluate(model, val_windows, o, ranks)
        for key in row.keys() & {"loss", "val_loss"}:
            history.setdefault(f"first_{key}", row[key])
            history[f"last_{key}"] = row[key]
        with ranks.together():
            if metrics:
                metrics.add(row)
                tracker.add(row)
                say(report.progress(row, o.steps, (o.steps - step) * tokens_per_step / max(speed.recent, 1e-9)))

    # Loop
    speed = report.Throughput(tokens_per_step, start)
    stop = Stop()
    stop.listen()
    if not resumed:
        log(0, {"step": 0})
    done, saved, signal_number = start, start if resumed else -1, 0
    speed.go_on(done)
    for step in range(start, o.steps):
        if signal_number := stop.agreed():
            break
        lr = learning_rate(step, o)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = torch.zeros((), device=ranks.device)
        for micro in range(o.grad_accum):
            place = sequences(step) + (micro * ranks.world_size + ranks.rank) * o.batch_size
            # Gradients add up locally; only the last micro-step sums them over the ranks.
            with ddp.no_sync() if micro < o.grad_accum - 1 else nullcontext():
                part = token_losses(ddp, *windows.batch(place, o.batch_size), o.dtype).mean() / o.grad_accum
                part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        norm = nn.utils.clip_grad_norm_(model.parameters(), o.clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1

        logging = done == 1 or done % o.log_every == 0 or done % o.eval_every == 0 or done == o.steps
        saving = done % o.checkpoint_every == 0 or done == o.steps
        if logging or saving or done == start + report.WARM_STEPS:
            mean_loss = ranks.mean(float(loss), 1)  # also waits for the device, so that the time below is true
            speed.pause(done)
            if not math.isfinite(mean_loss):
                raise TrainerError(
                    f"the training loss is {mean_loss} at step {done}; try a lower --lr or more --warmup"
                )
            if logging:
                log(done, {"step": done, "loss": mean_loss, "lr": lr, "grad_norm": float(norm),
                           "tokens_per_second": round(speed.recent, 1)})  # fmt: skip
            if saving:
                history["tokens_per_second"] = speed.mean or history.get("tokens_per_second")
                save(saved := done)
            speed.go_on(done)
    if saved != done:
        save(done)
    signal_number = stop.close() or signal_number
    if len(set(ranks.gather(digest := report.params_sha256(model.state_dict())))) > 1:
        raise TrainerError("the ranks end with different weights; the machine or its network computes wrongly")
    if o.export and not signal_number:
        from stackrt.train import exported

        exported.write(model, Path(o.export), tokenizer_from, ranks)
    dist.destroy_process_group()

    # End: the other ranks are done
    if not metrics:
        return INTERRUPTED + signal_number if signal_number else 0
    metrics.close()
    newest = Path("checkpoints") / f"step-{done:06d}.pt"
    if signal_number:
        tracker.finish()
        name = signal.Signals(signal_number).name
        say(f"stopped by {name} after step {done}; the same command goes on from {o.out / newest}")
        return INTERRUPTED + signal_number
    written = tokenizer.decode(sample(model, corpus.val[: min(32, o.context)], o, tokenizer.size))
    report.write_atomically(o.out / "sample.txt", written)
    report.plot_loss(o.out / "loss.png", metrics.rows, bigram, f"GPT-2, {origin}, {parameters:,} parameters")
    seconds, speed_mean = time.perf_counter() - began, history["tokens_per_second"]
    report.write_result(o.out / "result.json", {
        "workload": "gpt", "steps": done, "seed": o.seed, "world_size": ranks.world_size, "device": ranks.device.type,
        "dtype": o.dtype, "threads": threads, "parameters": parameters, "tokens": sequences(done) * o.context,
        "first_train_loss": history["first_loss"], "last_train_loss": history["last_loss"],
        "first_val_loss": history["first_val_loss"], "last_val_loss": history["last_val_loss"], "bigram_loss": bigram,
        "tokens_per_second": speed_mean, "seconds": round(seconds, 3), "params_sha256": digest,
        "resumed_from": resumed.path if resumed else None, "checkpoint": str(newest), "export": o.export or None,
        "options": describe(o),
    })  # fmt: skip
    tracker.finish([o.out / name for name in ("loss.png", "sample.txt", "result.json")])
    say(f"\n{written}\n")
    say(f"done    {done} steps in {seconds:.0f} s" + (f", {speed_mean:,.0f} tokens per second" if speed_mean else ""))
    first, last = history["first_val_loss"], history["last_val_loss"]
    say(f"loss    validation {first:.3f} -> {last:.3f}; bigram model {bigram:.3f}")
    say(f"files   {o.out}: result.json, loss.png, sample.txt, metrics.jsonl, tensorboard/, {newest}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; expected failures become one line and an exit code."""
    return ended(lambda: run(gpt_options.parse(sys.argv[1:] if argv is None else argv)))


if __name__ == "__main__":
    leave(main())
