"""Train a causal language model that is sharded over the ranks. Read it top to bottom, as gpt.py beside it.

    python -m stackrt.train.lm                                               one process
    torchrun --nproc-per-node 4 -m stackrt.train.lm --replicate 2            two copies, each over two ranks
    stackctl run lm --nodes 2 --procs 2 -- --model qwen-tiny --tp 2          each layer over two ranks
    stackctl run lm --gpus 8 -- --model llama-8b --data my.txt --compile     eight billion parameters over eight GPUs

The modules beside it hold models (presets, folders), mesh (FSDP2, tensor parallel), samples (text to batches), sharded
(checkpoints) and weights (Hugging Face folders). The same seed and mesh give the same weights, bit for bit; another
mesh gives the same but for rounding.
"""

import os
import sys

from stackrt.launch import cpus
from stackrt.train import command_line, lm_options

if __name__ == "__main__":
    command_line.check_early(
        lm_options.parse, sys.argv[1:], ["torch", "transformers"]
    )  # costs 0.1 s, not the import of torch

os.environ.update(cpus.sleeping_soon())  # also without a launcher
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler's own log
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic

import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from stackrt.finetune import lora
from stackrt.train import exported, flops, masks, mesh, models, profiling, report, samples, sharded, tracking, weights
from stackrt.train.command_line import describe, flag
from stackrt.train.errors import INTERRUPTED, BadInputError, TrainerError
from stackrt.train.experts import idle
from stackrt.train.layout import OfTransformers
from stackrt.train.lm_options import Options, cures, micro_batch, on_mesh, on_ranks, sizes
from stackrt.train.masks import Masks, Part, part_of
from stackrt.train.process import build_optimizer, check_compiler, ended, learning_rate, leave, say, set_up_compute
from stackrt.train.ranks import Ranks, Stop, join
from stackrt.train.text import Batch, Packed, mix

# ---------------------------------------------------------------------------------------------------------------------
# Model


def load_config(o: Options, ranks: Ranks) -> tuple[models.Config, Path | None]:
    """The model's configuration, and its folder if it has one."""
    if not models.is_hub_name(o.model):
        return models.config_of(o.model), models.folder_of(o.model)
    folder = weights.fetch(o.model, "--model", False, ranks)
    config = models.read_config(folder, f"--model {o.model}")
    models.fits(o.model, config, o.context, o.tp)
    return config, folder


def token_losses(model: nn.Module, part: Part, device: torch.device) -> Tensor:
    """Cross-entropy of each next token in nats, always fp32: [batch * context]."""
    beside = {name: masks.on(device, value) for name, value in part.beside.items()}
    logits = model(input_ids=part.inputs.to(device), **beside).logits
    return F.cross_entropy(logits.float().flatten(0, 1), part.targets.to(device).flatten(), reduction="none")


@torch.no_grad()
def evaluate(
    model: nn.Module, windows: Batch | Packed, size: int, place: mesh.Place, sight: Masks | None, ranks: Ranks
) -> float:
    """Mean loss over the held-out windows, in nats a token; the windows are dealt to the readers in turn."""
    model.eval()
    total, count = 0.0, 0
    for number in range(math.ceil(len(windows.inputs) / (size * place.readers))):
        batch, counts = samples.held_out_part(windows, number, size, place.reader, place.readers)
        part = part_of(batch, place, sight)
        losses = token_losses(model, part, ranks.device).view(part.targets.shape)
        total += float(losses.double().sum(1)[counts.to(losses.device)].sum())
        count += int((part.targets[counts] >= 0).sum())
    model.train()
    mesh.shard_again(model)
    return ranks.mean(total, count)


# ---------------------------------------------------------------------------------------------------------------------
# Optimizer and state


def fingerprint(o: Options, config: models.Config, digest: str, base: weights.Weights | None) -> dict[str, Any]:
    """What a resumed run must share. Neither ranks nor mesh: another one rounds otherwise, and goes on."""
    names = ("init", "context", "steps", "seed", "batch_size", "lr", "min_lr", "warmup", "weight_decay", "clip",
             "dtype", *(("lora", "lora_alpha", "lora_targets") if base else ()))  # fmt: skip
    same = {flag(name): describe(o)[name] for name in names}
    held = {"weights of --init": base.identity()} if base else {}
    model = {f"--model's {name}": value for name, value in models.identity(config).items()}
    return model | same | held | {"--data": digest}


# ---------------------------------------------------------------------------------------------------------------------
# The run


def run(o: Options) -> int:  # noqa: PLR0912, PLR0915 - one page, read once, top to bottom
    """Train, or only evaluate, and return the exit code: 0, or 128 + the signal that asked to stop."""
    began = time.perf_counter()
    ranks = join()
    threads = set_up_compute(o.threads, o.seed, ranks)
    o = on_ranks(o, ranks.world_size)
    with ranks.together():
        if o.compile:
            check_compiler(ranks.device)
        if ranks.first:
            report.prepare_folder(o.out, export=o.export, export_adapter=o.export_adapter)
    config, folder = load_config(o, ranks)
    size = models.shape(config)
    data, tokenizer_folder = samples.load(o, folder, size.vocabulary, ranks)

    # Model and checkpoint: on the meta device, so what cannot work is said by all ranks
    with ranks.together():
        skeleton = mesh.skeleton(config, f"--model {o.model}")
        laid = OfTransformers(skeleton)
        plan = mesh.plan(skeleton, config, o)
        masks.see_shareable(skeleton, plan.blocks.values(), o)
    # With adapters a checkpoint holds them alone.
    base = weights.first(o.init, skeleton, laid, ranks) if o.lora else None
    with ranks.together():
        wanted = fingerprint(o, config, data.digest, base)
    resumed = sharded.find(o.out / "checkpoints", o.resume, ranks, wanted, say)
    if o.evaluate and not resumed and not o.init:
        raise BadInputError(f"--evaluate: no checkpoint in {o.out}, and no --init: there are no weights to evaluate")
    first_weights = base or (None if resumed else weights.first(o.init, skeleton, laid, ranks))

    # Model: filled and sharded block by block
    place = mesh.lay_out(o, ranks)
    model, averaged = mesh.build(skeleton, plan, o, place, ranks, first_weights.fill if first_weights else None)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    kept = {} if o.lora else weights.persistent(model)
    optimizer = build_optimizer(trained.values(), o)
    start, history = 0, dict[str, Any]()
    if resumed:
        start, history = resumed.note["step"], resumed.note["history"]
        sharded.load(resumed.path, sharded.state_of(trained, optimizer, start, kept), ranks)
    parameters, learning = (sum(p.numel() for p in held) for held in (model.parameters(), trained.values()))
    resting = idle(model)
    sight = masks.found(model, o, place, ranks, packed=isinstance(data.held_out, Packed))
    micro_size, micro_steps = micro_batch(o)
    tokens_per_step = o.batch_size * o.context

    def export() -> None:
        if o.export:
            exported.write(model, Path(o.export), tokenizer_folder, ranks, data.template, laid)
        if o.export_adapter:
            lora.export(model, o, ranks)

    if o.evaluate:
        held_out = evaluate(model, data.held_out, micro_size, place, sight, ranks)
        export()
        dist.destroy_process_group()
        if ranks.first:
            answer = {
                "loss": held_out,
                "perplexity": report.perplexity(held_out),
                "bigram_loss": data.bigram,
                "step": start,
                "tokens": int((data.held_out.targets >= 0).sum()),
                "weights": resumed.path if resumed else o.init,
            }
            report.write_result(o.out / "evaluation.json", answer)
            say(f"loss    {held_out:.4f} nats a token, perplexity {report.perplexity(held_out) or math.inf:.3f}; "
                f"bigram model {data.bigram:.4f}")  # fmt: skip
        return 0

    # Report
    metrics: report.Metrics | None = None
    sharing = sharded.shared_by_all(o.out / "checkpoints", ranks)
    saver = sharded.Saver(o.out / "checkpoints", o.keep, o.save == "async", ranks)
    peak = flops.peak(ranks.device)
    tied = bool(config.get("tie_word_embeddings", "n_embd" in config))
    each = flops.per_token(parameters, learning, size, o.context, tied, idle=resting)
    with ranks.together():
        if ranks.first:
            metrics = report.Metrics(o.out, start if resumed else -1)
            tracker = tracking.Tracker(o.track, o.out, describe(o), say, resumed=bool(resumed))
            told_of = f", of which {parameters - resting:,} compute a token" if resting else ""
            told_of += f", of which {learning:,} are trained ({learning / parameters:.2%})" if o.lora else ""
            say(f"model   {o.model}: {size.layers} layers, {size.heads} heads, width {size.width}, context "
                f"{o.context}; {parameters:,} parameters{told_of}, {o.dtype}")  # fmt: skip
            say(f"text    {data.about}")
            say(f"ranks   {ranks.world_size} on {ranks.device.type}: {on_mesh(o)}; {threads} CPU threads each; "
                f"{tokens_per_step:,} tokens a step in {micro_steps} parts of {micro_size} sequences a rank, seed "
                f"{o.seed}")  # fmt: skip
            say(
                f"bigram  validation loss {data.bigram:.3f}: a model of the same tokens that sees one of them at a time"
            )
            say(f"output  {o.out}" + (f", going on from {resumed.path} after step {start}" if resumed else ""))
            if not sharing:
                say("note    the nodes do not share --out, so no checkpoints are written: give the run a volume "
                    "(stackctl submit --volume)")  # fmt: skip

    def told(saved: sharded.Saved | None) -> dict[str, Any]:
        """Say how a save ended; what of it goes into the next row of metrics."""
        if saved is None:
            return {}
        if saved.error:
            error = f"{saved.path}: the checkpoint could not be written: {saved.error}; "
            error += sharded.last_good(o.out / "checkpoints") if ranks.first else ""
            if o.on_save_error == "stop":
                raise TrainerError(f"{error}; free some space and start again to go on from there")
            if ranks.first:
                say(f"warning {error}; training goes on")
            return {"save_failed": 1}
        history.setdefault("save_stalls", []).append(round(saved.stall, 4))
        history["checkpoint"] = f"checkpoints/{saved.path.name}"
        return {"save_stall": round(saved.stall, 4), "save_seconds": round(saved.seconds, 4)}

    def save(step: int) -> None:
        if sharing:
            if metrics:
                metrics.sync()
            note = {"step": step, "fingerprint": wanted, "options": describe(o), "history": history,
                    "world_size": ranks.world_size, "mesh": sizes(o)}  # fmt: skip
            extra.update(told(saver.start(step, sharded.state_of(trained, optimizer, step, kept), note)))

    def log(step: int, row: report.Row) -> None:
        extra.update(told(saver.poll()))
        if step % o.eval_every == 0 or step == o.steps:
            row["val_loss"] = evaluate(model, data.held_out, micro_size, place, sight, ranks)
        for key in row.keys() & {"loss", "val_loss"}:
            history.setdefault(f"first_{key}", row[key])
            history[f"last_{key}"] = row[key]
        with ranks.together():
            if metrics:
                metrics.add(row | extra)
                tracker.add(row | extra)
                say(report.progress(row, o.steps, (o.steps - step) * tokens_per_step / max(speed.recent, 1e-9)))
        extra.clear()

    def see_that_finite(loss: Tensor, bad: Tensor) -> float:
        """The mean loss of a step; where one was not finite, all ranks end, before anything is saved."""
        rows = ranks.gather((float(loss), *bad.tolist()))
        found = [(step, rank, "loss") for rank, (_, step, _) in enumerate(rows) if step]
        found += [(step, rank, "norm of the gradients") for rank, (_, _, step) in enumerate(rows) if step]
        if found:
            at, rank, what = min(found)
            saver.wait()  # what was begun before is good
            good = f"; {sharded.last_good(o.out / 'checkpoints')}" if ranks.first and sharing else ""
            raise TrainerError(
                f"step {at}, rank {rank}: the {what} is not finite; try a lower --lr or more --warmup{good}"
            )
        return float(sum(value for value, _, _ in rows) / len(rows))

    # Loop
    speed = report.Throughput(tokens_per_step, start)
    stop = Stop()
    stop.listen()
    extra = dict[str, Any]()
    profiler = profiling.Profiler(o.profile, o.out, ranks)
    if not resumed:
        log(0, {"step": 0})
    done, saved_step, signal_number, reading = start, start if resumed else -1, 0, 0.0
    loss = torch.zeros((), device=ranks.device)
    bad = torch.zeros(2, dtype=torch.int64, device=ranks.device)  # the first steps whose loss and norm are not finite
    share = 0
    speed.go_on(done)
    for step in range(start, o.steps):
        if signal_number := stop.agreed():
            break
        profiler.before(step + 1)
        lr = learning_rate(step, o)
        for group in optimizer.param_groups:
            group["lr"] = lr
        stream = place.reader * place.parts + place.part
        torch.manual_seed(mix(o.seed, "dropout", step, stream))  # so nothing of it has to be saved
        loss = torch.zeros((), device=ranks.device)
        counted = data.counted(step * o.batch_size, o.batch_size)  # targets of this step, over all ranks
        for micro in range(micro_steps):
            began_reading = time.perf_counter()
            number = step * o.batch_size + (micro * place.readers + place.reader) * micro_size
            with profiler.part(profiling.DATA):
                batch = data.train.batch(number, micro_size)
            reading += time.perf_counter() - began_reading
            # Gradients add up; only the last part sums them over the ranks.
            mesh.sync_gradients(model, averaged, micro == micro_steps - 1)
            with profiler.part("forward"):
                losses = token_losses(model, part_of(batch, place, sight), ranks.device)
                share_of_loss = losses.sum() * (place.readers * place.parts / counted)  # FSDP takes the mean over them
            with profiler.part("backward"):
                share_of_loss.backward()  # type: ignore[no-untyped-call]
            loss += share_of_loss.detach()
        with profiler.part("optimizer"):
            if averaged:
                averaged.wait()
            norm = mesh.clip_by_norm(model.parameters(), o.clip, ranks)
            optimizer.step()
        share = share or mesh.share_bytes(model, optimizer)
        optimizer.zero_grad()
        done = step + 1
        profiler.after(done, say)
        bad = torch.where((bad == 0) & ~torch.stack([loss, norm.float()]).isfinite(), done, bad)

        logging = done == 1 or done % o.log_every == 0 or done % o.eval_every == 0 or done == o.steps
        saving = done % o.checkpoint_every == 0 or done == o.steps
        if logging or saving or done == start + report.WARM_STEPS:
            mean_loss = see_that_finite(loss, bad)  # also waits for the device
            speed.pause(done)
            if logging:
                row: report.Row = {
                    "step": done,
                    "loss": mean_loss,
                    "lr": lr,
                    "grad_norm": float(norm),
                    "tokens_per_second": round(speed.recent, 1),
                    "data_seconds": round(reading, 4),
                }
                if peak:
                    row["mfu"] = round(speed.recent * each / (peak * ranks.world_size), 4)
                log(done, row)
                reading = 0.0
            if saving:
                history["tokens_per_second"] = speed.mean or history.get("tokens_per_second")
                save(saved_step := done)
            speed.go_on(done)
    if saved_step != done:
        see_that_finite(loss, bad)
        save(done)
    told(saver.wait())
    signal_number = stop.close() or signal_number
    digest = weights.params_sha256(model, ranks)
    memory = ranks.gather((weights.memory_peak(ranks.device), share))
    if not signal_number:
        export()
    dist.destroy_process_group()

    # End: the other ranks are done
    if not metrics:
        return INTERRUPTED + signal_number if signal_number else 0
    metrics.close()
    newest = history.get("checkpoint") or (f"checkpoints/{Path(resumed.path).name}" if resumed else None)
    if signal_number:
        name = signal.Signals(signal_number).name
        again = f"goes on from {o.out / newest}" if newest else "begins anew, as there is no checkpoint"
        say(f"stopped by {name} after step {done}; the same command {again}")
        tracker.finish()
        return INTERRUPTED + signal_number
    title = f"{o.model}, {parameters:,} parameters"
    report.plot_loss(o.out / "loss.png", metrics.rows, data.bigram, title)
    seconds, speed_mean, last = time.perf_counter() - began, history["tokens_per_second"], history["last_val_loss"]
    stalls = history.get("save_stalls", [])
    report.write_result(o.out / "result.json", {
        "workload": "lm", "steps": done, "seed": o.seed, "world_size": ranks.world_size,
        "mesh": sizes(o), "device": ranks.device.type,
        "dtype": o.dtype, "threads": threads, "parameters": parameters,
        "trained_parameters": learning, "tokens": done * tokens_per_step,
        "first_train_loss": history["first_loss"], "last_train_loss": history["last_loss"],
        "first_val_loss": history["first_val_loss"], "last_val_loss": last, "perplexity": report.perplexity(last),
        "bigram_loss": data.bigram, "tokens_per_second": speed_mean,
        "mfu": speed_mean * each / (peak * ranks.world_size) if peak and speed_mean else None,
        "peak_memory": [most for most, _ in memory], "share_bytes": [held for _, held in memory],
        "save_stalls": stalls, "seconds": round(seconds, 3), "params_sha256": digest,
        "resumed_from": resumed.path if resumed else None, "checkpoint": newest, "export": o.export or None,
        "export_adapter": o.export_adapter or None,
        "options": describe(o),
    })  # fmt: skip
    say(f"done    {done} steps in {seconds:.0f} s" + (f", {speed_mean:,.0f} tokens per second" if speed_mean else ""))
    if stalls:
        say(f"saves   {len(stalls)}; the training stood still for {max(stalls):.3f} s at most")
    perplexity = report.perplexity(last) or math.inf
    say(f"loss    validation {history['first_val_loss']:.3f} -> {last:.3f}, perplexity {perplexity:.2f}; "
        f"bigram model {data.bigram:.3f}")  # fmt: skip
    say(f"files   {o.out}: result.json, loss.png, metrics.jsonl, tensorboard/" + (f", {newest}" if newest else ""))
    tracker.finish([o.out / name for name in ("loss.png", "result.json")])
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; expected failures become one line and an exit code."""

    def parsed_and_run() -> int:
        o = lm_options.parse(sys.argv[1:] if argv is None else argv)
        try:
            return run(o)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            # The rank that it happens to says so itself: the others know nothing of it, and will miss this one.
            sys.stderr.write(f"error: rank {os.environ.get('RANK', '0')}: out of memory; lower {cures(o)}\n")
            return TrainerError.exit_code

    return ended(parsed_and_run)


if __name__ == "__main__":
    leave(main())
