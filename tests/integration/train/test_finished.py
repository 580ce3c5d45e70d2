"""What training left is opened again: from checkpoints, exports and small integers; and what cannot be is said."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainers import Trainers

pytestmark = pytest.mark.needs("torch")

SMALL = ["--layers", "1", "--heads", "2", "--width", "32", "--context", "16", "--steps", "3", "--batch-size", "2",
         "--eval-tokens", "320", "--sample-tokens", "2"]  # fmt: skip
TEXT = "What, ho! Wörld"


def logits(opened: Any) -> Any:
    import torch

    with torch.no_grad():
        return opened.model(input_ids=torch.tensor([opened.tokenizer.encode(TEXT)[:16]])).logits


@pytest.fixture(scope="module")
def run(_trainers: Trainers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished gpt with an export in its folder."""
    out = tmp_path_factory.mktemp("finished") / "run"
    _trainers.run([*SMALL, "--out", str(out), "--export", str(out / "export")], out.parent / "log")
    return out


def test_a_run_of_gpt_and_its_export_are_one_model(run: Path, tmp_path: Path) -> None:
    import torch

    from stackrt.finished import open_language_model
    from stackrt.finished.language import words_of

    exported = open_language_model(run)
    assert torch.equal(logits(exported), logits(open_language_model(run / "export")))
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("export"))
    shutil.move(run / "export", run / "elsewhere")
    try:
        opened = open_language_model(copy)
    finally:
        shutil.move(run / "elsewhere", run / "export")
    assert torch.equal(logits(opened), logits(exported))
    assert opened.config["n_embd"] == 32
    assert opened.tokenizer.decode(opened.tokenizer.encode(TEXT)) == TEXT
    assert opened.tokenizer.encode("é") == list("é".encode())
    assert [words_of(one.tokenizer).name for one in (opened, exported)] == ["byte", "byte"]


def test_a_run_with_learned_tokens_finds_them_again(trainers: Trainers, tmp_path: Path) -> None:
    from stackrt.finished import open_language_model

    out = tmp_path / "run"
    trainers.run([*SMALL, "--tokenizer", "bpe", "--vocab-size", "300", "--out", str(out)], tmp_path / "log")
    tokenizer = open_language_model(out).tokenizer
    assert len(tokenizer) == 300
    assert len(tokenizer.encode("the")) < 3
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_a_sharded_run_of_lm_is_opened_without_ranks(trainers: Trainers, tmp_path: Path) -> None:
    import torch

    from stackrt.finished import open_language_model
    from stackrt.train.errors import BadInputError
    from stackrt.train.report import params_sha256

    out = tmp_path / "run"
    argv = ["--model", "qwen-tiny", "--context", "16", "--steps", "2", "--batch-size", "2", "--eval-tokens", "320",
            "--out", str(out)]  # fmt: skip
    trainers.run_ranks(1, 2, argv, tmp_path / "logs", TEST_PROGRAM="stackrt.train.lm")
    opened = open_language_model(out)
    done = json.loads((out / "result.json").read_text())
    assert params_sha256(dict(opened.model.named_parameters())) == done["params_sha256"]
    assert bool(torch.isfinite(logits(opened)).all())

    part = next((out / done["checkpoint"]).glob("__0_*"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInputError, match=r"is refused: the content of __0_0\.distcp does not match"):
        open_language_model(out)


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int4"])
def test_integers_come_back_as_they_were_written(run: Path, tmp_path: Path, scheme: str) -> None:
    import torch

    from stackrt.finished import open_language_model, quantized
    from stackrt.train.errors import BadInputError

    opened = open_language_model(run)
    exact = logits(opened)
    quantized.quantize(opened.model, scheme)
    quantized.save(opened.model, tmp_path)
    (tmp_path / "compressed.json").write_text(json.dumps({"scheme": scheme}))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(run / "export" / name, tmp_path)
    again = open_language_model(tmp_path)
    assert torch.equal(logits(again), logits(opened))
    assert float((logits(again) - exact).abs().max()) < 0.2 * float(exact.abs().max())

    held = (tmp_path / quantized.FILE).read_bytes()
    (tmp_path / quantized.FILE).write_bytes(held[: len(held) // 2])
    with pytest.raises(BadInputError, match=r"quantized\.safetensors: damaged"):
        open_language_model(tmp_path)
    (tmp_path / quantized.FILE).write_bytes(held)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    with pytest.raises(BadInputError, match=r"another model.s than config\.json says: .*wte\.qdata has shape"):
        open_language_model(tmp_path)


def test_what_cannot_be_opened_is_said(run: Path, tmp_path: Path) -> None:
    from stackrt.finished import open_language_model, open_picture_model
    from stackrt.train.errors import BadInputError

    def refused(path: Path, match: str) -> None:
        with pytest.raises(BadInputError, match=match):
            open_language_model(path)

    refused(tmp_path / "none", "there is no such folder")
    refused(tmp_path, "is no model")
    (tmp_path / "checkpoints").mkdir()
    refused(tmp_path, "has not finished")
    other = shutil.copytree(run / "export", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    for change, match in (
        ({"n_embd": 48, "n_head": 3}, "config.json says: it has in another shape|cannot be read: "),
        ({"n_layer": 2}, "config.json says: it lacks transformer.h.1"),
        ({"architectures": ["BertForMaskedLM"]}, "holds a BertForMaskedLM, and no causal"),
        ({"activation_function": 7}, "cannot use its config.json: .*activation_function.*: TypeError: .* str"),
        ({"id2label": 7, "architectures": 7}, "cannot use its config.json: "),
    ):
        (other / "config.json").write_text(json.dumps(config | change))
        refused(other, match)
    (other / "config.json").write_text(json.dumps(config))
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(other, "its weights cannot be read")
    (other / "result.json").write_text('{"workload": "cnn"}')
    refused(other, "is a run of cnn, and no language model")
    (other / "result.json").write_text("{")
    refused(other, "result.json: it is damaged")
    broken = shutil.copytree(run, tmp_path / "broken", ignore=shutil.ignore_patterns("export"))
    result = json.loads((broken / "result.json").read_text())
    (broken / "result.json").write_text(json.dumps(result | {"export": None}))
    file = broken / result["checkpoint"]
    file.write_bytes(file.read_bytes()[:-200])
    refused(broken, "step-000003.pt is refused: its end is missing")
    file.unlink()
    refused(broken, "its checkpoint is not there any more")
    fake = tmp_path / "model.keras"
    fake.write_bytes(b"PK but no zip")
    refused(fake, "is a Keras model, and no language model")
    with pytest.raises(BadInputError, match="is damaged, or no file of Keras 3"):
        open_picture_model(fake)
    with pytest.raises(BadInputError, match="is a run of gpt; name the folder of a keras run"):
        open_picture_model(run)
