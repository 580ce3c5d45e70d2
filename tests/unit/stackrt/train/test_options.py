"""Options: presets, what wins, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from stackrt.train import command_line, options
from stackrt.train.errors import BadInputError
from stackrt.train.options import PRESETS, parse


def test_every_preset_gives_every_option() -> None:
    for name in PRESETS:
        chosen = parse(["--preset", name])
        assert all(getattr(chosen, option) == value for option, value in PRESETS[name].items())


def test_gpt2_presets_are_the_published_sizes() -> None:
    """Layers, heads, width as in Radford et al. 2019, table 2; context and vocabulary as released."""
    sizes = {"gpt2": (12, 12, 768), "gpt2-medium": (24, 16, 1024)}
    for name, size in sizes.items():
        o = parse(["--preset", name])
        assert (o.layers, o.heads, o.width) == size
        assert (o.context, o.vocab_size) == (1024, 50257)


def test_given_options_win_over_the_preset_wherever_they_stand() -> None:
    assert parse(["--layers", "2", "--preset", "small"]).layers == 2
    assert parse(["--preset", "small", "--layers", "2"]).layers == 2
    assert parse(["--preset", "small", "--dropout", "0"]).dropout == 0
    assert parse([]).preset == "tiny"


def test_a_short_run_keeps_a_short_warm_up_unless_told() -> None:
    assert parse(["--steps", "20"]).warmup == 2
    assert parse(["--steps", "5"]).warmup == 0
    assert parse(["--steps", "20", "--warmup", "10"]).warmup == 10
    assert parse(["--lr", "1e-5"]).min_lr == 1e-5


def test_out_comes_from_the_option_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STACK_OUT", raising=False)
    assert parse([]).out == Path("out")
    monkeypatch.setenv("STACK_OUT", "/runs/7")
    assert parse([]).out == Path("/runs/7")
    assert parse(["--out", "here"]).out == Path("here")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--steps 0", "--steps 0: must be 1 or more"),
        ("--steps -5", "--steps -5"),
        ("--batch-size 0", "--batch-size 0"),
        ("--batch-size 99999999999", "--batch-size 99999999999: must be 1048576 or fewer"),
        ("--grad-accum 0", "--grad-accum 0"),
        ("--keep 0", "--keep 0"),
        ("--checkpoint-every 0", "--checkpoint-every 0"),
        ("--heads 3 --width 128", "--heads 3: must divide --width (128)"),
        ("--heads 0", "--heads 0"),
        ("--context 1", "--context 1"),
        ("--lr -0.1", "--lr -0.1"),
        ("--lr 0", "--lr 0.0"),
        ("--lr nan", "--lr nan"),
        ("--lr inf", "--lr inf"),
        ("--min-lr 1 --lr 0.1", "--min-lr 1.0: must not exceed --lr (0.1)"),
        ("--warmup 400 --steps 400", "--warmup 400: must be fewer than --steps (400)"),
        ("--dropout 1", "--dropout 1.0"),
        ("--dropout -0.1", "--dropout -0.1"),
        ("--val-fraction 0", "--val-fraction 0.0"),
        ("--val-fraction 1", "--val-fraction 1.0"),
        ("--weight-decay nan", "--weight-decay nan"),
        ("--vocab-size 255", "--vocab-size 255: byte tokens need 256"),
        ("--vocab-size 256 --tokenizer bpe", "--vocab-size 256: must be 257"),
        ("--seed -1", "--seed -1"),
        ("--seed 4294967296", "--seed 4294967296"),
        ("--sample-tokens -1", "--sample-tokens -1"),
    ],
)
def test_values_that_cannot_work(line: str, expected: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse(line.split())
    assert str(caught.value).startswith(expected)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("line", ["--dtype fp8", "--tokenizer word", "--preset huge", "--step 3", "--steps x", "extra"])
def test_usage_errors_are_argparse_s_and_come_from_rank_0_only(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as caught:
            parse(line.split())
        assert caught.value.code == 2
        assert bool(capsys.readouterr().err) == (rank == "0")


@pytest.mark.parametrize("words", [["--export", ""], ["--export="], ["--out", "", "--steps", "3"], ["--data", "a", ""]])
def test_an_empty_value_is_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As of a variable that is not set: no export, or all into the working folder."""
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 2
    assert f"argument {words[0].rstrip('=')}: is empty" in capsys.readouterr().err


def test_help_names_every_option_and_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for field in dataclasses.fields(options.Options):
        assert command_line.flag(field.name) in text
    assert all(name in text for name in PRESETS)


def test_a_description_is_plain_values() -> None:
    described = command_line.describe(parse(["--data", "a", "b"]))
    assert described["data"] == ["a", "b"]
    assert isinstance(described["out"], str)


GPT2 = {"model_type": "gpt2", "n_layer": 3, "n_head": 2, "n_embd": 32, "vocab_size": 300, "n_positions": 48}


def folder_with(path: Path, config: dict[str, object]) -> str:
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def test_init_sets_the_shape_over_the_preset_s(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, GPT2)
    o = parse(["--preset", "small", "--init", folder, "--context", "32"])
    assert (o.layers, o.heads, o.width, o.vocab_size, o.context) == (3, 2, 32, 300, 32)
    assert (o.batch_size, o.tokenizer) == (16, "byte")
    (tmp_path / "tokenizer.json").touch()
    o = parse(["--init", folder])
    assert (o.context, o.tokenizer) == (48, folder)
    assert parse(["--init", folder, "--tokenizer", "byte"]).tokenizer == "byte"


@pytest.mark.parametrize(
    ("changed", "more", "expected"),
    [
        ({"model_type": "llama"}, "", "a llama, and this trainer knows GPT-2 alone; `lm` trains the others"),
        ({"n_layer": None}, "", "config.json is incomplete: it lacks num_hidden_layers or n_layer"),
        ({}, "--layers 2", "--layers 2: the model of --init has 3; leave --layers out"),
        ({}, "--vocab-size 256", "--vocab-size 256: the model of --init has 300"),
        ({}, "--context 64", "--context 64: .* has 48 positions"),
    ],
)
def test_an_init_that_does_not_fit(tmp_path: Path, changed: dict[str, object], more: str, expected: str) -> None:
    with pytest.raises(BadInputError, match=expected):
        parse(["--init", folder_with(tmp_path, GPT2 | changed), *more.split()])


def test_an_init_that_is_no_folder_and_an_export_that_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"--init absent: config.json: No such file"):
        parse(["--init", "absent"])
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match=r"--export .*file: is a file; name a folder"):
        parse(["--export", str(tmp_path / "file")])
