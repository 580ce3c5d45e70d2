"""Real training: it learns, it repeats itself bit for bit, it stops and goes on without a trace."""

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainers import Trainers

pytestmark = pytest.mark.needs("torch")

SMALLEST = ["--layers", "1", "--heads", "2", "--width", "16", "--context", "16", "--batch-size", "2", "--lr", "3e-3",
            "--eval-tokens", "2000", "--sample-tokens", "8", "--log-every", "2", "--eval-every", "10"]  # fmt: skip
# Everything that could break equality: dropout draws random numbers, and gradients add up over micro-steps.
HARD = [*SMALLEST, "--dropout", "0.2", "--grad-accum", "2", "--seed", "5"]


def result(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[tuple[Any, ...]]:
    """The rows without what depends on the clock."""
    return [
        (row["step"], row.get("loss"), row.get("val_loss"), row.get("lr"), row.get("grad_norm")) for row in rows(out)
    ]


def test_learns_more_than_a_bigram_model_and_reports_it(trainers: Trainers, tmp_path: Path) -> None:
    words = ["alpha", "beta", "gamma", "delta", "omega"]
    text = tmp_path / "my.txt"
    text.write_text("".join(f"{words[i % 5]} {words[(i * i) % 5]} {words[(i // 2) % 5]}\n" for i in range(4000)))
    out = tmp_path / "out"
    argv = ["--data", str(text), "--out", str(out), "--layers", "2", "--heads", "2", "--width", "32", "--context", "32",
            "--batch-size", "16", "--steps", "120", "--lr", "1e-2", "--eval-tokens", "4000",
            "--sample-tokens", "60"]  # fmt: skip
    printed = trainers.run(argv, tmp_path / "log")
    done = result(out)
    assert done["last_val_loss"] < done["bigram_loss"] - 0.2 < done["first_val_loss"] - 1
    assert done["last_train_loss"] < done["first_train_loss"]
    assert done["steps"] == 120
    assert done["tokens"] == 120 * 16 * 32
    assert done["tokens_per_second"] > 0
    assert (done["schema_version"], done["workload"], done["device"], done["resumed_from"]) == (1, "gpt", "cpu", None)
    assert (out / done["checkpoint"]).is_file()
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "sample.txt").read_text() in printed
    assert f"bigram  validation loss {done['bigram_loss']:.3f}" in printed
    assert re.search(r"^step +50/120 .* val \d\.\d+ .* tok/s +eta \d+ s$", printed, re.MULTILINE)
    assert "arning" not in printed
    assert [row["step"] for row in rows(out)][:3] == [0, 1, 10]
    assert "val_loss" in rows(out)[0]


def test_tensorboard_reads_the_events(trainers: Trainers, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    trainers.run([*SMALLEST, "--steps", "6", "--out", str(tmp_path)], tmp_path / "log")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    read = {event.step: event.value for event in events.Scalars("loss/train")}
    assert read == pytest.approx({row["step"]: row["loss"] for row in rows(tmp_path) if "loss" in row})
    assert {"loss/val", "lr", "grad_norm", "tokens_per_second"} <= set(events.Tags()["scalars"])


def test_same_seed_same_weights_other_seed_other_weights(trainers: Trainers, tmp_path: Path) -> None:
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        trainers.run([*HARD, "--steps", "12", "--seed", seed, "--out", str(tmp_path / name)], tmp_path / f"{name}.log")
    a, b, c = (result(tmp_path / name)["params_sha256"] for name in "abc")
    assert a == b != c
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.parametrize("extra", [[], ["--dtype", "bf16"], ["--tokenizer", "bpe", "--vocab-size", "300"]], ids=str)
def test_layouts_of_four_ranks_agree_bit_for_bit(trainers: Trainers, tmp_path: Path, extra: list[str]) -> None:
    layouts = {"1x4": (1, 4), "2x2": (2, 2), "2x2-again": (2, 2), "4x1": (4, 1)}
    data = tmp_path / "my.txt"
    data.write_text("the quick brown fox jumps over the lazy dog, said the other fox\n" * 300)
    for name, (nodes, procs) in layouts.items():
        argv = [*HARD, "--data", str(data), "--width", "64", "--steps", "12", *extra, "--out", str(tmp_path / name)]
        trainers.run_ranks(nodes, procs, argv, tmp_path / f"{name}.logs")
        if extra and name == "2x2":
            break
    assert len({result(tmp_path / name)["params_sha256"] for name in layouts if (tmp_path / name).exists()}) == 1
    assert losses(tmp_path / "1x4") == losses(tmp_path / "2x2")
    for rank in (1, 2, 3):
        assert (tmp_path / "2x2.logs" / f"rank-{rank}.log").read_text() == "", "only rank 0 prints"


@pytest.mark.parametrize("world", [1, 4])
def test_a_resumed_run_ends_bit_equal(trainers: Trainers, tmp_path: Path, world: int) -> None:
    """Also for the metrics: the same rows, whatever the first attempt had logged past its checkpoint."""
    argv = [*HARD, "--steps", "20", "--checkpoint-every", "7", "--keep", "9"]
    trainers.run_ranks(1, world, [*argv, "--out", str(tmp_path / "whole")], tmp_path / "whole.logs")
    out = tmp_path / "broken"
    trainers.run_ranks(1, world, [*argv, "--out", str(out)], tmp_path / "broken.logs")
    for name in ("step-000014.pt", "step-000020.pt"):
        (out / "checkpoints" / name).unlink()
    trainers.run_ranks(1, world, [*argv, "--out", str(out)], tmp_path / "resumed.logs")
    assert result(out)["params_sha256"] == result(tmp_path / "whole")["params_sha256"]
    assert result(out)["resumed_from"].endswith("step-000007.pt")
    assert losses(out) == losses(tmp_path / "whole")
    for name in ("first_train_loss", "last_train_loss", "first_val_loss", "last_val_loss", "bigram_loss"):
        assert result(out)[name] == result(tmp_path / "whole")[name]


def test_a_named_checkpoint_goes_on_in_another_folder(trainers: Trainers, tmp_path: Path) -> None:
    argv = [*HARD, "--steps", "10", "--checkpoint-every", "4"]
    trainers.run([*argv, "--out", str(tmp_path / "a"), "--keep", "9"], tmp_path / "a.log")
    start = tmp_path / "a" / "checkpoints" / "step-000004.pt"
    trainers.run([*argv, "--out", str(tmp_path / "b"), "--resume", str(start)], tmp_path / "b.log")
    assert result(tmp_path / "a")["params_sha256"] == result(tmp_path / "b")["params_sha256"]


def test_a_finished_run_started_again_trains_nothing(trainers: Trainers, tmp_path: Path) -> None:
    argv = [*SMALLEST, "--steps", "8", "--out", str(tmp_path)]
    trainers.run(argv, tmp_path / "log")
    before = result(tmp_path)
    (tmp_path / "result.json").unlink()
    trainers.run(argv, tmp_path / "log2")
    after = result(tmp_path)
    for name in ("params_sha256", "first_val_loss", "last_val_loss", "last_train_loss", "tokens_per_second"):
        assert after[name] == before[name]


def test_resume_none_starts_anew_and_keeps_what_was_there(trainers: Trainers, tmp_path: Path) -> None:
    argv = [*SMALLEST, "--out", str(tmp_path), "--resume", "none"]
    trainers.run([*argv, "--steps", "8"], tmp_path / "log")
    printed = trainers.run([*argv, "--steps", "6"], tmp_path / "log2")
    assert "step-000008.pt is from another run; kept as step-000008.pt.old" in printed
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2, 4, 6]


@pytest.mark.parametrize(
    ("world", "steps", "number"), [(1, 400, signal.SIGTERM), (4, 150, signal.SIGTERM), (2, 250, signal.SIGINT)]
)
def test_a_signal_stops_all_ranks_at_one_step_and_the_run_goes_on(
    trainers: Trainers, tmp_path: Path, world: int, steps: int, number: signal.Signals
) -> None:
    """Some seconds of steps are left when the signal comes, whatever a step takes with so many ranks."""
    argv = [*HARD, "--steps", str(steps), "--checkpoint-every", "1000"]
    trainers.run_ranks(1, world, [*argv, "--out", str(tmp_path / "whole")], tmp_path / "whole.logs")
    out = tmp_path / "broken"
    ranks = trainers.start_ranks(1, world, [*argv, "--out", str(out)], tmp_path / "broken.logs")
    wait_for_step(out, 6)
    ranks[-1].kill(number)  # one rank is enough: they agree
    assert [rank.wait(30) for rank in ranks] == [128 + number] * world
    stopped = re.search(rf"stopped by {number.name} after step (\d+)", ranks[0].output)
    assert stopped
    assert 6 <= int(stopped[1]) < steps
    assert "Traceback" not in "".join(rank.output for rank in ranks)
    assert not (out / "result.json").exists()
    trainers.run_ranks(1, world, [*argv, "--out", str(out)], tmp_path / "resumed.logs")
    assert result(out)["params_sha256"] == result(tmp_path / "whole")["params_sha256"]
    assert losses(out) == losses(tmp_path / "whole")


def test_a_killed_rank_ends_the_others_with_one_line(trainers: Trainers, tmp_path: Path) -> None:
    ranks = trainers.start_ranks(2, 2, [*SMALLEST, "--steps", "5000", "--out", str(tmp_path)], tmp_path / "logs")
    wait_for_step(tmp_path, 4)
    ranks[2].kill()
    assert [rank.wait(30) for rank in ranks] == [75, 75, -signal.SIGKILL, 75]
    assert re.search(r"^error: another rank is gone: ", ranks[0].output, re.MULTILINE)
    assert "Traceback" not in "".join(rank.output for rank in ranks)


def wait_for_step(out: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (out / "metrics.jsonl").exists() and f'"step": {step},' in (out / "metrics.jsonl").read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was never logged")


def test_a_corrupt_checkpoint_is_refused_by_name_and_the_one_before_used(trainers: Trainers, tmp_path: Path) -> None:
    argv = [*HARD, "--steps", "12", "--checkpoint-every", "4", "--keep", "3", "--out", str(tmp_path)]
    trainers.run(argv, tmp_path / "log")
    before = result(tmp_path)["params_sha256"]
    newest = tmp_path / "checkpoints" / "step-000012.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0x10
    newest.write_bytes(content)
    (tmp_path / "checkpoints" / "step-000008.pt").write_bytes(b"")
    printed = trainers.run(argv, tmp_path / "log2")
    assert re.search(r"step-000012\.pt refused: its content does not match its checksum", printed)
    assert re.search(r"step-000008\.pt refused: it is empty", printed)
    assert "after step 4" in printed
    assert result(tmp_path)["params_sha256"] == before


def test_another_run_s_checkpoint_is_refused_and_nothing_is_touched(trainers: Trainers, tmp_path: Path) -> None:
    argv = [*SMALLEST, "--out", str(tmp_path)]
    trainers.run([*argv, "--steps", "8"], tmp_path / "log")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for changed, told in (
        (["--steps", "9"], "--steps was 8, is 9"),
        (["--steps", "8", "--width", "32", "--lr", "0.5"], "--width was 16, is 32, --lr was 0.003, is 0.5"),
        (
            ["--steps", "8", "--data", str(tmp_path / "metrics.jsonl"), "--val-fraction", "0.3"],
            "--data gives another text",
        ),
    ):
        if "--data" in changed:
            (tmp_path / "metrics.jsonl").write_bytes(files[tmp_path / "metrics.jsonl"] * 3)
            files[tmp_path / "metrics.jsonl"] *= 3
        process = trainers.start([*argv, *changed], tmp_path.parent / "refused.log")
        assert process.wait() == 78
        assert told in process.output.splitlines()[-1]
    ranks = trainers.start_ranks(1, 2, [*argv, "--steps", "8"], tmp_path.parent / "refused.logs")
    assert [rank.wait() for rank in ranks] == [78, 78]
    assert "WORLD_SIZE was 1, is 2" in ranks[0].output
    assert ranks[1].output == ""
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_an_export_is_whole_and_training_goes_on_from_it(trainers: Trainers, tmp_path: Path, tokenizer: str) -> None:
    """transformers reads model and tokenizer, and so does --init: its first loss is the first run's last."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

    data, export, out = tmp_path / "my.txt", tmp_path / "export", tmp_path / "out"
    data.write_text("the quick brown fox jumps over the lazy dog, said the öther fox → 🦊\n" * 200)
    argv = [*SMALLEST, "--data", str(data), "--tokenizer", tokenizer, "--vocab-size", "300"]
    trainers.run_ranks(1, 2, [*argv, "--steps", "20", "--out", str(out), "--export", str(export)], tmp_path / "logs")
    assert result(out)["export"] == str(export)
    files = {path.name for path in export.iterdir()}
    assert files == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                     "tokenizer_config.json"}  # fmt: skip
    assert len({path.stat().st_mode for path in export.iterdir()}) == 1, "weights are for whom their config.json is for"

    model = AutoModelForCausalLM.from_pretrained(export).eval()
    trained = GPT2LMHeadModel(model.config).eval()
    trained.load_state_dict(torch.load(out / result(out)["checkpoint"], weights_only=True)["model"])
    reader = AutoTokenizer.from_pretrained(export)
    text = "the lazy → 🦊 dog\n\n fox"
    ids = reader(text, return_tensors="pt").input_ids
    assert reader.decode(ids[0]) == text
    assert (ids[0].tolist() == list(text.encode())) == (tokenizer == "byte")
    with torch.no_grad():
        assert float((model(ids[:, :16]).logits - trained(ids[:, :16]).logits).abs().max()) < 1e-5
    assert len(model.generate(ids[:, :4], max_new_tokens=4, do_sample=False)[0]) == 8

    again = ["--data", str(data), "--init", str(export), "--batch-size", "2", "--eval-tokens", "2000", "--steps", "2",
             "--sample-tokens", "4", "--out", str(tmp_path / "tuned")]  # fmt: skip
    printed = trainers.run(again, tmp_path / "log")
    assert f"GPT-2, from {export}: 1 layers, 2 heads, width 16, context 16" in printed
    assert result(tmp_path / "tuned")["first_val_loss"] == pytest.approx(result(out)["last_val_loss"], abs=1e-6)
    assert result(tmp_path / "tuned")["bigram_loss"] == result(out)["bigram_loss"], "the tokens are the same"
