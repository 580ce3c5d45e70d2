"""Sharded training that is killed, fills its disk, runs out of memory, diverges, or is asked for what cannot work."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.train import lm
from tests.support.trainers import Process, Trainers, environment

pytestmark = pytest.mark.needs("torch")

SEED = 20_261_130
KILLS = int(os.environ.get("STACK_TEST_KILLS") or 4)
MANY = 50  # so many land in every phase


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and no weights."""
    folder = tmp_path_factory.mktemp("shape")
    (folder / "config.json").write_text(json.dumps(lm.config()))
    return folder


def test_kills_at_random_moments_also_within_a_save(trainers: Trainers, tmp_path: Path) -> None:
    """A save in each step: whatever a kill leaves, of one rank or of all, the run goes on and ends bit-equal."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(lm.config(hidden_size=128, intermediate_size=384)))
    argv = [*lm.SETTINGS, "--model", str(folder), "--steps", "40", "--log-every", "1", "--keep", "2"]
    lm.run(trainers, 2, [*argv, "--out", str(tmp_path / "whole")], tmp_path / "whole.logs")
    dice = random.Random(SEED)
    landed: Counter[str] = Counter()
    kills = chain = 0
    while kills < KILLS:
        chain += 1
        out, attempt = tmp_path / f"chain-{chain}", 0
        codes: set[int | None] = set()
        checkpoints = out / "checkpoints"
        while codes != {0}:
            before, attempt = newest(checkpoints), attempt + 1
            logs = tmp_path / f"chain-{chain}.{attempt}"
            ranks = lm.start(trainers, 2, [*argv, "--checkpoint-every", "1", "--out", str(out)], logs)
            if killing := kills < KILLS:
                strike(ranks, dice, checkpoints, before)
            codes = {rank.wait() for rank in ranks}
            told = f"seed {SEED}, kill {kills}, chain {chain}\n" + "\n".join(rank.output[-1500:] for rank in ranks)
            assert codes <= {-signal.SIGKILL, 75, 0} if killing else codes == {0}, told
            if -signal.SIGKILL in codes:
                kills += 1
                within = any(not (path / "COMMITTED").exists() for path in checkpoints.glob("step-*"))
                landed["save" if within else "start-up" if newest(checkpoints) == before else "steps"] += 1
        assert lm.result(out)["params_sha256"] == lm.result(tmp_path / "whole")["params_sha256"], told
        assert [row["step"] for row in lm.rows(out)] == list(range(41))
        assert len(list(checkpoints.glob("step-*"))) == 2
    print(f"{kills} kills in {chain} runs: {dict(landed)}")
    assert KILLS < MANY or all(landed[phase] >= 3 for phase in ("start-up", "steps", "save")), landed


def strike(ranks: list[Process], dice: random.Random, checkpoints: Path, before: str) -> None:
    """Kill all ranks at any moment from the first on, or one of them soon after this attempt's first checkpoint."""
    if dice.random() < 1 / 3:
        time.sleep(dice.uniform(0, 3))
        victims = ranks
    else:
        deadline = time.monotonic() + 60
        while newest(checkpoints) == before and not (checkpoints.parent / "result.json").exists():
            assert time.monotonic() < deadline, ranks[0].output
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.1))
        victims = [dice.choice(ranks)]
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):  # it was at its end
            victim.kill()


def newest(checkpoints: Path) -> str:
    return max((path.parent.name for path in checkpoints.glob("step-*/COMMITTED")), default="")


def test_an_asynchronous_save_stops_training_for_a_fifth_of_the_time(trainers: Trainers, tmp_path: Path) -> None:
    """The same 13 million parameters, 150 MB of state; the checkpoints are the same to the last bit."""
    folder = tmp_path / "model"
    folder.mkdir()
    sizes = lm.config(hidden_size=512, intermediate_size=1408, num_hidden_layers=4)
    (folder / "config.json").write_text(json.dumps(sizes))
    stalls, digests = {}, set()
    for how in ("sync", "async"):
        out = tmp_path / how
        argv = [*lm.SETTINGS, "--model", str(folder), "--steps", "14", "--batch-size", "4", "--eval-tokens", "64",
                "--eval-every", "60", "--checkpoint-every", "2", "--keep", "1", "--save", how]  # fmt: skip
        lm.run(trainers, 2, [*argv, "--out", str(out)], tmp_path / f"{how}.logs")
        stalls[how] = lm.result(out)["save_stalls"]
        digests.add(lm.result(out)["params_sha256"])
        shutil.rmtree(out / "checkpoints")
    print(f"a save stops training for {stalls} s")
    assert len(stalls["sync"]) == len(stalls["async"]) == 7
    # The best of them: the first allocates, and a busy machine adds to each.
    assert min(stalls["async"]) <= 0.2 * min(stalls["sync"])
    assert len(digests) == 1


@pytest.mark.parametrize("then", ["stop", "go-on"])
def test_a_disk_that_fills_within_a_save(
    trainers: Trainers, tmp_path: Path, small_disk: Path, shape: Path, then: str
) -> None:
    """Two checkpoints do not fit; the first one stays, and the next attempt has the room."""
    argv = [*lm.SETTINGS, "--model", str(shape), "--keep", "9", "--on-save-error", then]
    lm.run(trainers, 2, [*argv, "--out", str(tmp_path / "whole")], tmp_path / "whole.logs")
    size = sum(file.stat().st_size for file in (tmp_path / "whole/checkpoints/step-000010").iterdir())
    (small_disk / "ballast").write_bytes(b"x" * (2 * 1024 * 1024 - int(1.5 * size)))
    out = small_disk / "out"
    ranks = lm.start(trainers, 2, [*argv, "--out", str(out)], tmp_path / "logs")
    assert [rank.wait() for rank in ranks] == [1 if then == "stop" else 0] * 2, ranks[0].output
    told = re.search(r"step-000020: the checkpoint could not be written: (.*)", ranks[0].output)
    assert told, ranks[0].output
    assert re.search(r"rank \d: No space left on device; the last good one is step-000010", told[1])
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-000010"]
    assert "Traceback" not in ranks[0].output + ranks[1].output
    if then == "go-on":
        assert lm.result(out)["checkpoint"] == "checkpoints/step-000010"


def test_a_loss_that_is_not_finite_ends_all_ranks_and_keeps_the_checkpoint(
    trainers: Trainers, tmp_path: Path, shape: Path
) -> None:
    argv = [*lm.SETTINGS, "--model", str(shape), "--lr", "1e30", "--min-lr", "1e30", "--warmup", "0", "--clip", "0"]
    ranks = lm.start(
        trainers, 2, [*argv, "--checkpoint-every", "1", "--log-every", "1", "--out", str(tmp_path)], tmp_path / "logs"
    )
    assert [rank.wait() for rank in ranks] == [1, 1]
    told = re.search(r"^error: step (\d+), rank \d: the [a-z ]+ is not finite; .*; the last good one is step-(\d+)$",
                     ranks[0].output, re.MULTILINE)  # fmt: skip
    assert told, ranks[0].output
    assert int(told[2]) < int(told[1])


def test_nodes_that_do_not_share_a_folder_are_told_and_train(trainers: Trainers, tmp_path: Path, shape: Path) -> None:
    for node in ("one", "two"):
        (tmp_path / node).mkdir()
    argv = [*lm.SETTINGS, "--model", str(shape), "--steps", "10", "--out", "out"]
    folders = {"TEST_FOLDERS": f"{tmp_path}/one:{tmp_path}/two", "TEST_PROGRAM": lm.PROGRAM}
    ranks = trainers.start_ranks(2, 1, argv, tmp_path / "logs", **folders)
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output + ranks[1].output
    assert "the nodes do not share --out, so no checkpoints are written" in ranks[0].output
    assert lm.result(tmp_path / "one" / "out")["checkpoint"] is None
    assert list((tmp_path / "two").iterdir()) == []


def test_out_of_memory_says_what_to_lower(trainers: Trainers, tmp_path: Path, shape: Path) -> None:
    argv = [*lm.SETTINGS, "--model", str(shape), "--batch-size", "131072", "--micro-batch", "131072"]
    ranks = lm.start(trainers, 2, [*argv, "--out", str(tmp_path)], tmp_path / "logs", TEST_MEMORY=str(2 << 30))
    assert {rank.wait() for rank in ranks} <= {1, 75}
    output = "".join(rank.output for rank in ranks)
    assert re.search(r"^error: rank \d: out of memory; lower --micro-batch \(it is 131072\), or", output, re.MULTILINE)


def test_what_the_model_or_its_files_cannot_do(trainers: Trainers, tmp_path: Path, shape: Path) -> None:
    """One line each, from rank 0, before anything is trained."""
    from stackrt.train.text import train_bpe

    unknown, wide, tokenizer = (tmp_path / name for name in ("unknown", "wide", "tokenizer"))
    for folder, config in ((unknown, lm.config() | {"model_type": "nosuch"}), (wide, lm.config(hidden_size=64))):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text(train_bpe(b"some text with some words in it " * 50, 300))
    small = lm.config(vocab_size=200)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps(small))
    weights = tmp_path / "weights"
    weights.mkdir()
    from safetensors.torch import save_file
    from torch import zeros

    save_file({"model.embed_tokens.weight": zeros(256, 32)}, str(weights / "model.safetensors"))
    for number, (argv, told) in enumerate([
        (["--model", str(unknown)], "transformers cannot make it a causal language model"),
        (["--model", str(tmp_path / "small")], "it has 256 tokens, and"),
        (["--model", str(shape), "--tokenizer", str(tokenizer)], "the tokenizer that belongs to the model"),
        (["--model", str(shape), "--tokenizer", str(shape)], "No such file or directory; name a folder with a"),
        (["--model", str(shape), "--init", str(shape)], "no *.safetensors in it"),
        (["--model", str(shape), "--init", str(weights)], "it has no model.layers.0.self_attn.q_proj.weight"),
        (["--model", str(wide), "--init", str(weights)], "embed_tokens.weight is [256, 32] there, and [256, 64]"),
        (["--model", "gpt2-tiny", "--tp", "2"], "no tensor-parallel plan for gpt2-tiny; use --tp 1"),
        (["--model", str(shape), "--evaluate"], "no weights to evaluate"),
        (["--model", str(shape), "--resume", str(tmp_path / "none")], "refused: there is no such folder"),
    ]):  # fmt: skip
        ranks = lm.start(
            trainers, 2, [*lm.SETTINGS, *argv, "--out", str(tmp_path / "out")], tmp_path / f"{number}.logs"
        )
        assert [rank.wait() for rank in ranks] == [78, 78], ranks[0].output
        (line,) = ranks[0].output.splitlines()
        assert line.startswith("error: ")
        assert told in line
        assert ranks[1].output == ""


@pytest.mark.parametrize("how", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=["off", "dead"])
def test_a_hub_that_does_not_answer_is_one_line_within_seconds(how: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stackrt.train.lm", "--model", "nobody/nothing", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment(HF_HOME=str(tmp_path), **how), capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert "--model nobody/nothing: not in the cache" in line
    assert "hf download nobody/nothing" in line


def test_a_wrong_option_costs_no_import_of_torch() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "stackrt.train.lm", "--tp", "3"],
                          env=environment(WORLD_SIZE="4", RANK="0"), capture_output=True, text=True, timeout=60,
                          check=False)  # fmt: skip
    assert done.returncode == 78
    assert "error: --replicate 1 x --shard the rest x --tp 3 does not make 4 ranks" in done.stderr
    assert " torch" not in done.stderr
    assert time.monotonic() - began < 20
