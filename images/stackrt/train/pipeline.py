"""Train a causal language model whose layers are spread over the ranks. Read it top to bottom.

    python -m stackrt.train.pipeline                                              one process, all layers
    torchrun --nproc-per-node 2 -m stackrt.train.pipeline                         two stages, one a rank: 1F1B
    stackctl run pipeline --nodes 2 --procs 2 -- --schedule interleaved           eight stages, two a rank

A batch goes through the stages in parts, the micro-batches, so that all ranks work at once: PyTorch's own pipelining
sends activations on and gradients back. Between two ranks nothing else is sent, so stages may be on other nodes. The
same seed gives the same weights on any number of ranks, but for rounding. What shards each layer is lm.py.
"""

import os
import sys

from stackrt.launch import cpus
from stackrt.train import command_line, pipeline_options

if __name__ == "__main__":
    command_line.check_early(pipeline_options.parse, sys.argv[1:], ["torch", "transformers"])

os.environ.update(cpus.sleeping_soon())  # also without a launcher
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything here is local
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic

import hashlib
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
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B

from stackrt.train import exported, mesh, models, report, sharded
from stackrt.train import text as texts
from stackrt.train.command_line import describe, flag
from stackrt.train.errors import INTERRUPTED, BadInputError, TrainerError
from stackrt.train.pipeline_options import Options, config_of, idle_share, split
from stackrt.train.process import build_optimizer, ended, learning_rate, leave, say, set_up_compute
from stackrt.train.ranks import Ranks, Stop, join

# ---------------------------------------------------------------------------------------------------------------------
# Stages


class Stage(nn.Module):
    """Some layers of a Llama-like model; the first stage has its embeddings too, and the last its output layer.

    Args:
        model: The whole model, on the meta device; its modules here are filled.
        layers: Which of its layers.
        first: Whether there is no stage before: its input is token ids, [sequences, context], not activations.
        last: Whether there is none after: its output is logits.
    """

    def __init__(self, model: Any, layers: range, first: bool, last: bool) -> None:
        super().__init__()
        inner = model.model
        self.embeddings = inner.embed_tokens if first else None
        self.rotary = inner.rotary_emb
        self.layers = nn.ModuleList(inner.layers[number] for number in layers)
        self.norm = inner.norm if last else None
        self.output = model.lm_head if last else None

    def forward(self, x: Tensor) -> Tensor:
        """Activations of the next stage, [sequences, context, width]; of the last one, logits."""
        hidden = x if self.embeddings is None else self.embeddings(x)
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        angles = self.rotary(hidden, positions)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=None, position_ids=positions, position_embeddings=angles)
        if self.norm is None or self.output is None:
            return hidden
        logits: Tensor = self.output(self.norm(hidden))
        return logits


def build(o: Options, ranks: Ranks) -> tuple[dict[int, Stage], dict[str, nn.Parameter]]:
    """This rank's stages by number, and their parameters by name; no rank ever holds more of the model.

    Raises:
        BadInputError: The model is not like Llama.
    """
    model: Any = mesh.skeleton(config_of(o), f"--model {o.model}")
    inner = getattr(model, "model", None)
    if not all(hasattr(inner, part) for part in ("embed_tokens", "rotary_emb", "layers", "norm")):
        raise BadInputError(
            f"--model {o.model}: a {type(model).__name__} cannot be cut into stages here; use a Llama or Qwen shape"
        )
    shares = split(o, ranks.world_size)
    mine = range(ranks.rank, len(shares), ranks.world_size)
    names = {"model.rotary_emb"} | {f"model.layers.{number}" for stage in mine for number in shares[stage]}
    names |= {"model.embed_tokens"} if 0 in mine else set()
    names |= {"model.norm", "lm_head"} if len(shares) - 1 in mine else set()
    parameters: dict[str, nn.Parameter] = {}
    for name in sorted(names):
        module = model.get_submodule(name)
        mesh.first_values(model, name, module, o.seed, ranks.device)
        parameters |= {f"{name}.{own}": parameter for own, parameter in module.named_parameters()}
    stages = {stage: Stage(model, shares[stage], stage == 0, stage == len(shares) - 1) for stage in mine}
    return stages, parameters


class Pipeline:
    """The stages of all ranks, and the order in which micro-batches go through them.

    Args:
        stages: This rank's, by number.
        o: Schedule and micro-batches.
        ranks: Who has the others.
    """

    def __init__(self, stages: dict[int, Stage], o: Options, ranks: Ranks) -> None:
        count = len(split(o, ranks.world_size))
        self._first, self._last = 0 in stages, count - 1 in stages
        self._ranks = ranks
        parts: list[Any] = [
            PipelineStage(module, number, count, ranks.device, group=ranks.gradients)
            for number, module in stages.items()
        ]
        self._schedule: Any = (
            Schedule1F1B(parts[0], o.microbatches, _loss)
            if o.schedule == "1f1b"
            else ScheduleInterleaved1F1B(parts, o.microbatches, _loss)
        )

    def step(self, batch: texts.Batch, *, learn: bool = True) -> float:
        """The mean loss of a batch, on every rank; with `learn`, its gradients are added to the parameters'."""
        losses: list[Tensor] = []
        go = self._schedule.step if learn else self._schedule.eval
        inputs = [batch.inputs.to(self._ranks.device)] if self._first else []
        if self._last:
            go(*inputs, target=batch.targets.to(self._ranks.device), losses=losses)
        else:
            go(*inputs)
        loss = torch.stack([part.detach() for part in losses]).mean().cpu() if losses else torch.zeros(())
        dist.broadcast(loss, src=self._ranks.world_size - 1)
        return float(loss)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def evaluate(pipeline: Pipeline, windows: texts.Batch, size: int) -> float:
    """Mean loss over the held-out windows, in nats a token, as many as make whole batches."""
    rows = torch.arange(max(1, len(windows.inputs) // size) * size) % len(windows.inputs)
    with torch.no_grad():
        losses = [
            pipeline.step(texts.Batch(windows.inputs[part].long(), windows.targets[part].long()), learn=False)
            for part in torch.split(rows, size)
        ]
    return sum(losses) / len(losses)


# ---------------------------------------------------------------------------------------------------------------------
# Over all ranks


def params_sha256(parameters: dict[str, nn.Parameter], ranks: Ranks) -> str:
    """`report.params_sha256` of the whole model, on every rank; one parameter at a time is sent to the first."""
    digest = hashlib.sha256()
    where = {name: rank for rank, names in enumerate(ranks.gather(list(parameters))) for name in names}
    shapes = {
        name: shape
        for part in ranks.gather({n: p.shape for n, p in parameters.items()})
        for name, shape in part.items()
    }
    for name in sorted(where):
        held = parameters[name].detach().float().cpu().contiguous() if name in parameters else torch.empty(shapes[name])
        if where[name]:
            if ranks.first:
                dist.recv(held, src=where[name])
            elif name in parameters:
                dist.send(held, dst=0)
        digest.update(name.encode())
        digest.update(held.numpy().tobytes() if ranks.first else b"")
    return ranks.from_first(digest.hexdigest())


# ---------------------------------------------------------------------------------------------------------------------
# The run


def fingerprint(o: Options, digest: str) -> dict[str, Any]:
    """What a resumed run must share. Not the ranks: on others the stages are cut otherwise, and it goes on."""
    names = ("layers", "context", "steps", "seed", "batch_size", "lr", "min_lr", "warmup", "weight_decay", "clip")
    same = {flag(name): getattr(o, name) for name in names}
    config = models.identity(config_of(o))
    return {f"--model's {name}": value for name, value in config.items()} | same | {"--data": digest}


def run(o: Options) -> int:  # noqa: PLR0912, PLR0915 - one page, read once, top to bottom
    """Train, and return the exit code: 0, or 128 + the signal that asked to stop."""
    began = time.perf_counter()
    ranks = join()
    set_up_compute(o.threads, o.seed, ranks)
    with ranks.together():
        if ranks.first:
            report.prepare_folder(o.out, export=o.export)
        corpus = texts.tokenize(texts.read_text(o.data), texts.ByteTokenizer(), o.val_fraction, o.context)
    texts.see_that_same(corpus.digest, ranks)
    wanted = fingerprint(o, corpus.digest)
    resumed = sharded.find(o.out / "checkpoints", o.resume, ranks, wanted, say)
    train = texts.Windows(corpus.train, o.context, o.seed)
    held_out = texts.validation_windows(corpus.val, o.context, o.eval_tokens)
    bigram = texts.bigram_loss(corpus.train, corpus.val[: held_out.inputs.numel() + 1], texts.ByteTokenizer().size)

    with ranks.together():
        stages, parameters = build(o, ranks)
    pipeline = Pipeline(stages, o, ranks)
    optimizer = build_optimizer(parameters.values(), o)
    start, history = 0, dict[str, Any]()
    if resumed:
        start, history = resumed.note["step"], resumed.note["history"]
        sharded.load(resumed.path, sharded.state_of(parameters, optimizer, start), ranks)

    metrics: report.Metrics | None = None
    sharing = sharded.shared_by_all(o.out / "checkpoints", ranks)
    saver = sharded.Saver(o.out / "checkpoints", o.keep, True, ranks)
    count = sum(ranks.gather(sum(p.numel() for p in parameters.values())))
    shares = split(o, ranks.world_size)
    with ranks.together():
        if ranks.first:
            metrics = report.Metrics(o.out, start if resumed else -1)
            say(f"model   {o.model}: {o.layers} layers, context {o.context}; {count:,} parameters")
            for rank in range(ranks.world_size):
                held = range(rank, len(shares), ranks.world_size)
                told = ", ".join(f"stage {stage}: layers {shares[stage][0]} to {shares[stage][-1]}" for stage in held)
                say(f"rank {rank:<2} {told}")
            say(f"ranks   {ranks.world_size} on {ranks.device.type}; {o.schedule}, {o.microbatches} micro-batches: a "
                f"rank waits {idle_share(o, ranks.world_size):.0%} of a step if stages take equally long")  # fmt: skip
            say(f"bigram  validation loss {bigram:.3f}: a model of the same bytes that sees one of them at a time")
            say(f"output  {o.out}" + (f", going on from {resumed.path} after step {start}" if resumed else ""))
            if not sharing:
                say("note    the nodes do not share --out, so no checkpoints are written: give the run a volume")

    def save(step: int) -> None:
        if not sharing:
            return
        if metrics:
            metrics.sync()
        note = {"step": step, "fingerprint": wanted, "options": describe(o), "history": history}
        see_that_saved(saver.start(step, sharded.state_of(parameters, optimizer, step), note))

    def see_that_saved(saved: sharded.Saved | None) -> None:
        if saved and saved.error:
            raise TrainerError(f"{saved.path}: the checkpoint could not be written: {saved.error}; free some space, "
                               "and start again to go on from the last one")  # fmt: skip

    def log(step: int, row: report.Row) -> None:
        if step % o.eval_every == 0 or step == o.steps:
            row["val_loss"] = evaluate(pipeline, held_out, o.batch_size)
        for key in row.keys() & {"loss", "val_loss"}:
            history.setdefault(f"first_{key}", row[key])
            history[f"last_{key}"] = row[key]
        with ranks.together():
            if metrics:
                metrics.add(row)
                say(report.progress(row, o.steps, (o.steps - step) * tokens_per_step / max(speed.recent, 1e-9)))

    tokens_per_step = o.batch_size * o.context
    speed = report.Throughput(tokens_per_step, start)
    stop = Stop()
    stop.listen()
    if not resumed:
        log(0, {"step": 0})
    done, saved_step, signal_number = start, start if resumed else -1, 0
    speed.go_on(done)
    for step in range(start, o.steps):
        if signal_number := stop.agreed():
            break
        lr = learning_rate(step, o)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = pipeline.step(train.batch(step * o.batch_size, o.batch_size))
        norm = float(mesh.clip_by_norm(parameters.values(), o.clip, ranks, copies=lambda *_: 1))  # each is on one rank
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainerError(f"step {step + 1}: the loss is {loss} and the gradient's norm {norm}; try a lower --lr")
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        logging = done == 1 or done % o.log_every == 0 or done % o.eval_every == 0 or done == o.steps
        saving = done % o.checkpoint_every == 0 or done == o.steps
        if logging or saving or done == start + report.WARM_STEPS:
            speed.pause(done)
            if logging:
                log(done, {"step": done, "loss": loss, "lr": lr, "grad_norm": norm,
                           "tokens_per_second": round(speed.recent, 1)})  # fmt: skip
            if saving:
                save(saved_step := done)
            speed.go_on(done)
    if saved_step != done:
        save(done)
    see_that_saved(saver.wait())
    signal_number = stop.close() or signal_number
    digest = params_sha256(parameters, ranks)
    if o.export and not signal_number:
        exported.write_stages(mesh.skeleton(config_of(o), ""), parameters, Path(o.export), None, ranks)
    dist.destroy_process_group()
    if not metrics:
        return INTERRUPTED + signal_number if signal_number else 0
    metrics.close()
    if signal_number:
        say(f"stopped by {signal.Signals(signal_number).name} after step {done}; the same command goes on from there")
        return INTERRUPTED + signal_number
    report.plot_loss(
        o.out / "loss.png", metrics.rows, bigram, f"{o.model}, {o.layers} layers in {ranks.world_size} ranks"
    )
    last = history["last_val_loss"]
    report.write_result(o.out / "result.json", {
        "workload": "pipeline", "steps": done, "seed": o.seed, "world_size": ranks.world_size,
        "schedule": o.schedule, "microbatches": o.microbatches, "device": ranks.device.type, "parameters": count,
        "first_train_loss": history["first_loss"], "last_train_loss": history["last_loss"],
        "first_val_loss": history["first_val_loss"], "last_val_loss": last, "bigram_loss": bigram,
        "tokens_per_second": speed.mean, "idle_share": idle_share(o, ranks.world_size),
        "seconds": round(time.perf_counter() - began, 3), "params_sha256": digest,
        "resumed_from": resumed.path if resumed else None,
        "checkpoint": f"checkpoints/step-{done:06d}" if sharing else None, "export": o.export or None,
        "options": describe(o),
    })  # fmt: skip
    say(f"loss    validation {history['first_val_loss']:.3f} -> {last:.3f}; bigram model {bigram:.3f}")
    say(f"files   {o.out}: result.json, loss.png, metrics.jsonl, tensorboard/")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; expected failures become one line and an exit code."""
    return ended(lambda: run(pipeline_options.parse(sys.argv[1:] if argv is None else argv)))


if __name__ == "__main__":
    leave(main())
