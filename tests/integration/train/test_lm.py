"""Sharded training does what one process does: the same gradients, the same weights, on any mesh, broken or not."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.train import lm
from tests.integration.train.test_launched import ends, launch
from tests.support.ports import free_port
from tests.support.trainers import Trainers, environment

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.needs("torch")

MESHES = {
    "one": (1, []),
    "fsdp": (4, []),
    "hsdp": (4, ["--replicate", "2"]),
    "copies": (4, ["--replicate", "4", "--micro-batch", "1"]),
    "fsdp-tp": (4, ["--tp", "2", "--ac", "full"]),
    "context-tp": (4, ["--context-parallel", "2", "--tp", "2", "--ac", "selective"]),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder, with weights, as transformers writes it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = lm.config()
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("base")
    AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(_trainers: Trainers, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same 20 steps on every mesh."""
    folder = tmp_path_factory.mktemp("runs")
    for name, (ranks, mesh) in MESHES.items():
        out = folder / name
        argv = [*lm.SETTINGS, *mesh, "--model", str(base), "--init", str(base), "--out", str(out)]
        argv += ["--export", str(out / "export")]
        lm.run(_trainers, ranks, argv, folder / f"{name}.logs", TEST_PROGRAM=lm.PROBE)
    return {name: folder / name for name in MESHES}


@pytest.fixture(scope="module")
def plain(base: Path) -> tuple[list[Tensor], dict[str, Tensor], float]:
    """The same by a plain loop over transformers' model: first gradients, last weights, last loss."""
    import torch
    from transformers import AutoModelForCausalLM

    from stackrt.train import lm_options, process, text

    o = lm_options.parse([*lm.SETTINGS, "--model", str(base)])
    corpus = text.tokenize(text.read_text(o.data), text.ByteTokenizer(), o.val_fraction, o.context)
    windows = text.Windows(corpus.train, o.context, o.seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    groups = [{"params": [p for p in model.parameters() if (p.dim() >= 2) == matrix], "weight_decay": decay}
              for matrix, decay in ((True, o.weight_decay), (False, 0.0))]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    gradients: list[Tensor] = []
    loss = 0.0
    for step in range(o.steps):
        for group in optimizer.param_groups:
            group["lr"] = process.learning_rate(step, o)
        batch = windows.batch(step * o.batch_size, o.batch_size)
        logits = model(input_ids=batch.inputs).logits
        mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        mean.backward()  # type: ignore[no-untyped-call]
        gradients = gradients or [p.grad.clone() for p in model.parameters()]
        torch.nn.utils.clip_grad_norm_(model.parameters(), o.clip)
        optimizer.step()
        optimizer.zero_grad()
        loss = float(mean.detach())
    return gradients, {name: p.detach() for name, p in model.named_parameters()}, loss


@pytest.mark.parametrize("name", MESHES)
def test_every_mesh_equals_a_plain_loop(
    name: str, runs: dict[str, Path], plain: tuple[list[Tensor], dict[str, Tensor], float]
) -> None:
    import torch
    from safetensors.torch import load_file

    gradients, weights, loss = plain
    found = torch.load(runs[name] / "gradients.pt")
    worst = max(float((mine - theirs).abs().max()) for mine, theirs in zip(found, gradients, strict=True))
    assert worst < 1e-6
    held = load_file(runs[name] / "export" / "model.safetensors")
    apart = max(float((held[parameter] - weights[parameter]).abs().max()) for parameter in weights)
    print(f"{name}: gradients within {worst:.1e}, weights within {apart:.1e}")
    assert apart < 1e-5
    assert lm.result(runs[name])["last_train_loss"] == pytest.approx(loss, abs=1e-5)


def test_a_rank_of_four_holds_a_quarter(runs: dict[str, Path]) -> None:
    """Weights, gradients and moments; one process holds what each rank of DDP does."""
    (alone,) = lm.result(runs["one"])["share_bytes"]
    assert alone >= 16 * lm.result(runs["one"])["parameters"]
    for name in ("fsdp", "fsdp-tp", "context-tp"):
        shares = lm.result(runs[name])["share_bytes"]
        print(f"{name}: {max(shares) / alone:.3f} of DDP's share")
        assert max(shares) <= 0.35 * alone
        assert len(lm.result(runs[name])["peak_memory"]) == 4


def test_the_export_has_the_same_logits(runs: dict[str, Path], trainers: Trainers, tmp_path: Path) -> None:
    """transformers reads it, and so does --init: its loss is the run's last."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models = [AutoModelForCausalLM.from_pretrained(runs[name] / "export") for name in ("one", "fsdp-tp")]
    reader = AutoTokenizer.from_pretrained(runs["fsdp"] / "export")
    assert reader("a → fox").input_ids == list("a → fox".encode())
    assert reader.decode(reader("a → fox").input_ids) == "a → fox"
    assert (runs["fsdp"] / "export" / "generation_config.json").is_file()
    ids = torch.arange(16)[None]
    first, second = (model.eval()(input_ids=ids).logits for model in models)
    assert first.shape == (1, 16, 256)
    assert float((first - second).detach().abs().max()) < 1e-5
    export = str(runs["fsdp"] / "export")
    argv = [*lm.SETTINGS, "--model", export, "--init", export, "--evaluate", "--out", str(tmp_path)]
    printed = lm.run(trainers, 2, argv, tmp_path / "logs")
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["loss"] == pytest.approx(lm.result(runs["fsdp"])["last_val_loss"], abs=1e-6)
    assert f"perplexity {found['perplexity']:.3f}" in printed
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("name", "ranks", "mesh"),
    [("fsdp", 4, []), ("fsdp", 2, []), ("fsdp", 4, ["--tp", "2"]), ("fsdp", 2, ["--replicate", "2"]),
     ("copies", *MESHES["copies"]), ("copies", 2, [])],
    ids=str,
)  # fmt: skip
def test_a_checkpoint_of_four_ranks_goes_on_anywhere(
    trainers: Trainers, runs: dict[str, Path], base: Path, tmp_path: Path, name: str, ranks: int, mesh: list[str]
) -> None:
    start = runs[name] / "checkpoints" / "step-000010"
    argv = [*lm.SETTINGS, *mesh, "--model", str(base), "--init", str(base), "--out", str(tmp_path / "out")]
    printed = lm.run(
        trainers, ranks, [*argv, "--resume", str(start), "--export", str(tmp_path / "export")], tmp_path / "logs"
    )
    assert f"going on from {start} after step 10" in printed
    assert apart(tmp_path / "export", runs[name] / "export") < 1e-5
    if (ranks, mesh) == MESHES[name]:
        assert lm.result(tmp_path / "out")["params_sha256"] == lm.result(runs[name])["params_sha256"]


def test_a_checkpoint_of_four_ranks_goes_on_as_two_nodes_of_four(
    runs: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    """Under the launcher, each node with a copy of the model."""
    start = runs["fsdp"] / "checkpoints" / "step-000010"
    argv = [*lm.SETTINGS, "--replicate", "2", "--model", str(base), "--init", str(base), "--resume", str(start)]
    argv += ["--export", str(tmp_path / "export")]
    codes, output = ends(launch(2, 4, free_port(), tmp_path / "out", "lm", argv))
    assert codes == [0, 0], output
    assert f"going on from {start} after step 10" in output
    assert lm.result(tmp_path / "out")["mesh"] == {"replicate": 2, "shard": 4, "context_parallel": 1, "tp": 1}
    assert apart(tmp_path / "export", runs["fsdp"] / "export") < 1e-5


def apart(*exports: Path) -> float:
    """The largest difference between two exported models' weights."""
    from safetensors.torch import load_file

    mine, theirs = (load_file(folder / "model.safetensors") for folder in exports)
    return max(float((mine[name] - theirs[name]).abs().max()) for name in theirs)


def test_unfinished_and_damaged_ones_are_named_and_passed_over(
    trainers: Trainers, runs: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(runs["fsdp"], out)
    shutil.copytree(out / "checkpoints" / "step-000020", out / "checkpoints" / "step-000015")
    (out / "checkpoints" / "step-000015" / "COMMITTED").unlink()
    shard = next((out / "checkpoints" / "step-000020").glob("__2_*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0x10
    shard.write_bytes(content)
    argv = [*lm.SETTINGS, "--model", str(base), "--init", str(base), "--out", str(out)]
    printed = lm.run(trainers, 4, argv, tmp_path / "logs")
    assert "step-000015 was never finished, and is passed over" in printed
    assert f"step-000020 refused: the content of {shard.name} does not match its checksum" in printed
    assert "step-000010 after step 10" in printed
    assert lm.result(out)["params_sha256"] == lm.result(runs["fsdp"])["params_sha256"]
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert names == ["step-000010", "step-000020", "step-000020.bad"]


def test_another_run_s_checkpoint_is_refused(
    trainers: Trainers, runs: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    argv = [*lm.SETTINGS, "--init", str(base), "--out", str(runs["fsdp"])]
    other = tmp_path / "other"
    shutil.copytree(base, other)
    (other / "config.json").write_text(json.dumps(lm.config(num_hidden_layers=3)))
    for changed, told in (
        (["--model", str(base), "--lr", "0.5"], "--lr was 0.001, is 0.5"),
        (["--model", str(other)], "--model's num_hidden_layers was 2, is 3"),
    ):
        processes = lm.start(trainers, 2, [*argv, *changed], tmp_path / told[:6])
        assert [process.wait() for process in processes] == [78, 78]
        assert told in processes[0].output.splitlines()[-1]


def test_learns_more_than_a_bigram_model_stopped_in_between(trainers: Trainers, tmp_path: Path) -> None:
    """Stopped by SIGTERM, it goes on bit-equal to a run that was not."""
    words = ["alpha", "beta", "gamma", "delta", "omega"]
    text = tmp_path / "my.txt"
    text.write_text("".join(f"{words[i % 5]} {words[(i * i) % 5]} {words[(i // 2) % 5]}\n" for i in range(4000)))
    argv = ["--data", str(text), "--context", "32", "--batch-size", "16", "--steps", "100", "--lr", "1e-2",
            "--eval-tokens", "4000", "--log-every", "5"]  # fmt: skip
    lm.run(trainers, 2, [*argv, "--out", str(tmp_path / "whole")], tmp_path / "whole.logs")
    done = lm.result(tmp_path / "whole")
    assert done["last_val_loss"] < done["bigram_loss"] - 0.2 < done["first_val_loss"] - 1
    assert (done["workload"], done["mfu"]) == ("lm", None)
    assert done["mesh"] == {"replicate": 1, "shard": 2, "context_parallel": 1, "tp": 1}
    assert (tmp_path / "whole" / done["checkpoint"] / "COMMITTED").is_file()
    assert (tmp_path / "whole" / "loss.png").is_file()

    out = tmp_path / "out"
    ranks = lm.start(trainers, 2, [*argv, "--out", str(out)], tmp_path / "logs")
    wait_for(out / "metrics.jsonl", '"step": 5,')
    ranks[1].kill(signal.SIGTERM)
    assert [rank.wait() for rank in ranks] == [143, 143]
    assert re.search(r"stopped by SIGTERM after step \d+; the same command goes on from", ranks[0].output)
    lm.run(trainers, 2, [*argv, "--out", str(out)], tmp_path / "again")
    assert lm.result(out)["params_sha256"] == done["params_sha256"]
    assert [row["step"] for row in lm.rows(out)] == [row["step"] for row in lm.rows(tmp_path / "whole")]


def test_reads_what_prepare_wrote(trainers: Trainers, tmp_path: Path) -> None:
    """Shards of bytes are the same text: the same number of tokens, and a run that goes on with other ranks."""
    text = tmp_path / "my.txt"
    text.write_text("".join(f"line {i} is followed by line {i + 1}\n" for i in range(2000)))
    shards = tmp_path / "shards"
    command = [sys.executable, "-m", "stackrt.train.prepare", "--data", str(text), "--to", str(shards)]
    subprocess.run([*command, "--tokenizer", "byte"], env=environment(), check=True, capture_output=True)
    config = tmp_path / "model"
    config.mkdir()
    (config / "config.json").write_text(json.dumps(lm.config(vocab_size=300)))
    argv = [*lm.SETTINGS, "--model", str(config), "--data", str(shards), "--out", str(tmp_path / "out")]
    printed = lm.run(trainers, 2, argv, tmp_path / "logs")
    assert str(shards) in printed
    whole = lm.result(tmp_path / "out")
    assert whole["last_val_loss"] < whole["first_val_loss"]
    start = str(tmp_path / "out" / "checkpoints" / "step-000010")
    lm.run(trainers, 1, [*argv, "--out", str(tmp_path / "one"), "--resume", start], tmp_path / "one.logs")
    assert lm.result(tmp_path / "one")["last_val_loss"] == pytest.approx(whole["last_val_loss"], abs=1e-5)


def test_a_profile_shows_where_a_step_s_time_goes(trainers: Trainers, base: Path, tmp_path: Path) -> None:
    argv = [*lm.SETTINGS, "--model", str(base), "--steps", "6", "--profile", "4:2", "--out", str(tmp_path)]
    printed = lm.run(trainers, 2, argv, tmp_path / "logs")
    assert "Self CPU time total" in printed
    assert "profile a step of rank 0: step" in printed
    found = json.loads((tmp_path / "profile.json").read_text())
    assert (found["first_step"], found["steps"], len(found["seconds_a_step"])) == (4, 2, 2)
    for row in found["seconds_a_step"]:
        assert 0 < row["compute"] < row["step"]
        assert 0 < row["communication"] < row["step"]
        assert 0 < row["data"] < row["step"]
        parts = row["data"] + row["compute"] + row["communication"] + row["rest"]
        assert parts == pytest.approx(row["step"], rel=0.01)
    assert "profile on a CPU there is no snapshot of memory" in printed
    for rank in (0, 1):
        with gzip.open(tmp_path / "profile" / f"rank-{rank}.json.gz") as file:
            names = {str(event.get("name")) for event in json.load(file)["traceEvents"]}
        assert any("gloo:" in name for name in names)
        assert {"data", "forward", "backward", "optimizer"} <= names


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 90
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{text} never appeared in {path}"
        time.sleep(0.01)
