"""Fine-tuning a model that has learned: all of it, or adapters beside it; on dialogues, over several ranks."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.train import lm
from tests.support.trainers import Trainers

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.needs("torch")

PROGRAM = f"{lm.PROGRAM} peft"
LORA = ["--lora", "2", "--lr", "2e-2"]
SETTINGS = ["--context", "192", "--batch-size", "4", "--val-fraction", "0.2", "--steps", "24", "--lr", "3e-3",
            "--checkpoint-every", "12", "--eval-every", "24", "--keep", "9"]  # fmt: skip


@pytest.fixture(scope="session")
def base(_trainers: Trainers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has read a little Shakespeare."""
    folder = tmp_path_factory.mktemp("base")
    argv = ["--steps", "40", "--batch-size", "16", "--eval-every", "40", "--eval-tokens", "4000"]
    lm.run(_trainers, 2, [*argv, "--out", str(folder / "out"), "--export", str(folder / "model")], folder / "logs")
    return folder / "model"


@pytest.fixture(scope="session")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty short dialogues about numbers, of one or two questions."""
    dice = random.Random(1)
    path = tmp_path_factory.mktemp("chats") / "numbers.jsonl"
    with path.open("w") as file:
        for _ in range(60):
            a, b = dice.sample(range(10, 100), 2)
            said = [(f"Which is larger, {a} or {b}?", f"{max(a, b)} is larger.")]
            said += [("And smaller?", f"{min(a, b)} is smaller.")] * (dice.random() < 0.3)
            messages = [
                {"role": role, "content": text}
                for turn in said
                for role, text in zip(("user", "assistant"), turn, strict=True)
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


@pytest.fixture(scope="session")
def runs(_trainers: Trainers, base: Path, chats: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same dialogues learned by the whole model, and by adapters, on two ranks each."""
    folder = tmp_path_factory.mktemp("finetuned")
    for name, more in (("full", []), ("lora", [*LORA, "--export-adapter", str(folder / "lora" / "adapter")])):
        argv = command(base, chats, folder / name, *more, "--export", str(folder / name / "export"))
        lm.run(_trainers, 2, argv, folder / f"{name}.logs", TEST_PROGRAM=PROGRAM)
    return {name: folder / name for name in ("full", "lora")}


def command(base: Path, chats: Path, out: Path, *more: str) -> list[str]:
    return ["--model", str(base), "--init", str(base), "--data", str(chats), "--out", str(out), *SETTINGS, *more]


def logits(model: Any) -> Tensor:
    import torch

    ids = torch.tensor([list(b"<|im_start|>user\nWhich is larger, 12 or 21?<|im_end|>\n<|im_start|>assistant\n")])
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=ids).logits
    return found


def disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


@pytest.mark.parametrize("name", ["full", "lora"])
def test_the_held_out_dialogues_are_answered_better(name: str, runs: dict[str, Path]) -> None:
    done = lm.result(runs[name])
    fell = 1 - done["last_val_loss"] / done["first_val_loss"]
    print(f"{name}: held-out loss {done['first_val_loss']:.3f} -> {done['last_val_loss']:.3f}, by {fell:.0%}")
    assert fell >= 0.2
    if name == "lora":
        print(f"{done['trained_parameters']} of {done['parameters']} parameters are trained")
        assert done["trained_parameters"] < 0.03 * done["parameters"]
    else:
        assert done["trained_parameters"] == done["parameters"]
    printed = (runs[name].parent / f"{name}.logs" / "rank-0.log").read_text()
    assert "48 dialogues to train on, 12 held out" in printed
    assert ("of which 14,016 are trained (2.33%)" in printed) == (name == "lora")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft, to transformers
def test_an_export_with_adapters_is_what_peft_merges(runs: dict[str, Path], base: Path) -> None:
    """And the adapter alone is what peft loads; a checkpoint of it holds no base."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    exported = logits(AutoModelForCausalLM.from_pretrained(runs["lora"] / "export"))
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = logits(plain)
    adapted = PeftModel.from_pretrained(plain, str(runs["lora"] / "adapter"))
    for theirs in (logits(adapted), logits(adapted.merge_and_unload())):
        apart = float((exported - theirs).abs().max())
        print(f"logits within {apart:.1e} of peft's")
        assert apart < 1e-5
    assert float((exported - before).abs().max()) > 0.1
    full, small = (disk(runs[name] / "checkpoints" / "step-000012") for name in ("full", "lora"))
    print(f"a checkpoint of adapters is {small:,} bytes, of all {full:,}")
    assert small < 0.1 * full


def test_a_full_export_has_the_logits_of_the_weights_that_were_trained(runs: dict[str, Path], tmp_path: Path) -> None:
    """Those of the last checkpoint, read by PyTorch's own program, in transformers' own model."""
    import torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
    from transformers import AutoConfig, AutoModelForCausalLM

    export = runs["full"] / "export"
    dcp_to_torch_save(runs["full"] / "checkpoints" / "step-000024", tmp_path / "state.pt")
    trained = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(export))
    lacking = trained.load_state_dict(torch.load(tmp_path / "state.pt")["model"], strict=False)
    assert not lacking.unexpected_keys
    assert set(lacking.missing_keys) <= {"lm_head.weight"}  # tied
    apart = float((logits(AutoModelForCausalLM.from_pretrained(export)) - logits(trained)).abs().max())
    print(f"logits within {apart:.1e} of those that were trained")
    assert apart < 1e-5


@pytest.mark.parametrize("name", ["full", "lora"])
def test_an_export_has_the_loss_of_the_run(
    name: str, runs: dict[str, Path], chats: Path, trainers: Trainers, tmp_path: Path
) -> None:
    """Its own chat template is beside it now."""
    export = runs[name] / "export"
    assert "<|im_start|>" in (export / "chat_template.jinja").read_text()
    lm.run(trainers, 1, [*command(export, chats, tmp_path), "--evaluate"], tmp_path / "logs")
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["loss"] == pytest.approx(lm.result(runs[name])["last_val_loss"], abs=1e-5)


def test_adapters_go_on_bit_equal_and_on_another_mesh(
    runs: dict[str, Path], base: Path, chats: Path, trainers: Trainers, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    whole = lm.result(runs["lora"])
    start = str(runs["lora"] / "checkpoints" / "step-000012")
    theirs = load_file(runs["lora"] / "export" / "model.safetensors")
    meshes: tuple[tuple[str, int, list[str]], ...] = (
        ("same", 2, []),
        ("tp", 4, ["--tp", "2", "--replicate", "2"]),
        ("context", 2, ["--context-parallel", "2"]),
        ("copies", 2, ["--replicate", "2"]),
    )
    for name, ranks, mesh in meshes:
        out = tmp_path / name
        argv = command(base, chats, out, *LORA, *mesh, "--resume", start, "--export", str(out / "export"))
        printed = lm.run(trainers, ranks, argv, tmp_path / f"{name}.logs", TEST_PROGRAM=PROGRAM)
        assert f"going on from {start} after step 12" in printed
        mine = load_file(out / "export" / "model.safetensors")
        apart = max(float((mine[key] - theirs[key]).abs().max()) for key in theirs)
        print(f"{name}: weights within {apart:.1e}")
        assert apart < 1e-5
        if name == "same":
            assert lm.result(out)["params_sha256"] == whole["params_sha256"]


def test_what_cannot_be_fine_tuned_is_one_line(
    runs: dict[str, Path], base: Path, chats: Path, trainers: Trainers, tmp_path: Path
) -> None:
    """Also a base that is another one by now: adapters belong to the weights that they were trained beside."""
    broken = tmp_path / "broken.jsonl"
    broken.write_text(chats.read_text() + '{"messages": [\n')
    template = tmp_path / "template"
    shutil.copytree(base, template)
    (template / "chat_template.jinja").write_text("{{ raise_exception('no roles here') }}")
    out = tmp_path / "out"
    other = lm.result(runs["full"])["export"]
    shutil.copytree(runs["lora"], out)
    for number, (argv, told) in enumerate([
        (command(base, broken, tmp_path / "new"), f"--data {broken}:61: is not JSON"),
        (command(base, chats, tmp_path / "new", *LORA, "--lora-targets", "q_proj", "nosuch"), "no layer of the model"),
        (command(base, chats, tmp_path / "new", *LORA, "--lora-targets", "embed_tokens"), "is not in a block"),
        (command(base, chats, tmp_path / "new", *LORA, "--lora-targets", "input_layernorm"), "is not supported"),
        (command(base, chats, out, *LORA, "--init", other), "--init was "),
        (command(base, chats, tmp_path / "new", "--context", "32"), "--context 32: no dialogue"),
        (["--model", str(base), "--tokenizer", "byte", "--data", str(chats), "--context", "192", "--out",
          str(tmp_path / "new"), "--lora", "2"], "--lora 2: needs --init"),
    ]):  # fmt: skip
        ranks = lm.start(trainers, 2, argv, tmp_path / f"{number}.logs", TEST_PROGRAM=PROGRAM)
        assert [rank.wait() for rank in ranks] == [78, 78], ranks[0].output + ranks[1].output
        (line,) = ranks[0].output.splitlines()
        assert line.startswith("error: ")
        assert told in line
        assert ranks[1].output == ""
