from __future__ import annotations

import dataclasses
import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from stackrt.serve import found, memory
from stackrt.serve.options import Options
from stackrt.train.errors import BadInputError

CONFIG = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 100, "n_positions": 128}


def tensors(file: Path, shape: tuple[int, ...] = (10, 10), cut: int = 0) -> None:
    size = 4 * shape[0] * shape[1]
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    file.write_bytes((struct.pack("<Q", len(header)) + header + b"\0" * size)[: -cut or None])


def header(file: Path, offsets: list[float]) -> None:
    row = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}).encode()
    file.write_bytes(struct.pack("<Q", len(row)) + row + b"\0" * 4)


def export(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "tokenizer.json").write_text("{}")
    tensors(folder / "model.safetensors")
    return folder


def keras(file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "x" * 4000)
    return file


def test_a_folder_a_file_and_a_finished_run_are_found(tmp_path: Path) -> None:
    model = found.find(export(tmp_path / "hf"))
    assert (model.kind, model.weights, model.context) == ("language", {"F32": 100}, 128)
    assert found.find(keras(tmp_path / "m.keras")).kind == "pictures"
    run = tmp_path / "run"
    export(run / "export")
    (run / "job.json").write_text("{}")
    with pytest.raises(BadInputError, match="has not finished"):
        found.find(run)
    (run / "result.json").write_text("{}")
    assert found.find(run).path == run / "export"
    keras(run / "model.keras")
    with pytest.raises(BadInputError, match=r"several models: export, model\.keras"):
        found.find(run)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no .*safetensors"),
        (lambda folder: tensors(folder / "model.safetensors", cut=7), "damaged: it has .* bytes, and says"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 100), "damaged: its header is cut off"),
        (lambda folder: header(folder / "model.safetensors", [0, math.inf]), "damaged: cannot convert"),
        (lambda folder: header(folder / "model.safetensors", []), "damaged: list index"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is no JSON"),
        (lambda folder: (folder / "config.json").write_text("{}"), "model_type"),
    ],
)
def test_a_damaged_export_is_named_by_its_file(tmp_path: Path, spoil: Any, said: str) -> None:
    folder = export(tmp_path / "hf")
    spoil(folder)
    with pytest.raises(BadInputError, match=said):
        found.find(folder)


def test_a_result_of_any_content_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "result.json").write_text('{"workload": "gpt", "options": 3, "parameters": "many"}')
    assert found.find(tmp_path).kind == "language"


def test_a_damaged_keras_file_is_named(tmp_path: Path) -> None:
    file = keras(tmp_path / "m.keras")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(BadInputError, match=r"m\.keras: is damaged"):
        found.find(file)
    (tmp_path / "m.h5").write_bytes(b"x")
    with pytest.raises(BadInputError, match=r"is no \.keras file"):
        found.find(tmp_path / "m.h5")


def test_a_saved_model_belongs_to_another_server(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    with pytest.raises(BadInputError, match="--engine tf-serving"):
        found.find(tmp_path)


def test_what_does_not_fit_is_said_before_it_is_loaded(tmp_path: Path) -> None:
    model = found.find(export(tmp_path / "hf"))
    each = model.needs("auto", 128, 16)
    o = Options(model.path, context=128, workers=2)
    memory.check(model, o, 2 * each)
    with pytest.raises(BadInputError, match=r"2 workers need 1\.\d\d GiB of memory, and there are 1\.\d\d GiB; fewer"):
        memory.check(model, o, 2 * each - 1)
    assert model.needs("bfloat16", 128, 16) < each < model.needs("auto", 128, 32)

    main, of_gpu = model.needs_beside_gpu("auto"), model.needs_of_gpu("auto", 128, 16)
    assert main < each < main + of_gpu
    memory.check(model, o, 2 * main, [2 * of_gpu])
    with pytest.raises(BadInputError, match=r"2 workers need 1\.\d\d GiB of memory, "):
        memory.check(model, o, 2 * main - 1, [2 * of_gpu])
    with pytest.raises(BadInputError, match=r"2 workers need 1\.\d\d GiB of the GPU's memory, and there are 1\.\d\d"):
        memory.check(model, o, 2 * main, [2 * of_gpu - 1])
    memory.check(model, o, 2 * main, [of_gpu, of_gpu, 0])
    with pytest.raises(BadInputError, match=r"this model needs 0\.\d\d GiB of memory of GPU 1, and there are 0\.\d\d"):
        memory.check(model, o, 2 * main, [of_gpu, of_gpu - 1])
    with pytest.raises(BadInputError, match=r"2 workers need .* of memory of GPU 0"):
        memory.check(model, dataclasses.replace(o, workers=3), 3 * main, [of_gpu, of_gpu])


def test_the_limit_is_the_container_s_or_what_is_free(tmp_path: Path) -> None:
    assert memory.limit(tmp_path) == 1 << 62
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4096 kB\nMemAvailable: 2048 kB\n")
    assert memory.limit(tmp_path) == 2048 << 10
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert memory.limit(tmp_path) == 2048 << 10
    (group / "memory.max").write_text("1000\n")
    assert memory.limit(tmp_path) == 1000


def test_a_keras_file_that_was_packed_again_and_damaged_is_named(tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "x" * 4000)
    content = bytearray(file.read_bytes())
    begin = content.index(b"model.weights.h5") + len("model.weights.h5")
    content[begin] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(BadInputError, match=r"m\.keras: is damaged"):
        found.find(file)


def test_a_path_that_cannot_be_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / "m.keras" / "below"):
        with pytest.raises(BadInputError, match="there is no such file or folder"):
            found.find(path)
