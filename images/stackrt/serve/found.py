"""What a folder holds: which kind of model, whether its files are whole, what it takes of memory.

Standard library only: what cannot be served is said before anything slow is imported.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stackrt.finished import packed
from stackrt.train import models, paths
from stackrt.train.errors import BadInputError

Kind = Literal["language", "pictures"]

LANGUAGE_RUNS = ("gpt", "lm")
"""Workloads whose runs are opened by their checkpoint, where they left no export."""

BASE = 600 << 20
"""Bytes that a worker takes before it has a model: Python, PyTorch, and what they need to compute."""
GPU_BASE = 700 << 20
"""Bytes that a worker takes of a GPU before it has a model: CUDA's context, and what its libraries compute with."""
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Model:
    """A model that can be served.

    Attributes:
        path: A Hugging Face folder, or a `.keras` file.
        weights: Numbers in its files by their kind, `F32` and so on.
        config: A language model's config.json.
    """

    kind: Kind
    path: Path
    weights: dict[str, int] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def context(self) -> int:
        """The most tokens that a language model takes."""
        return models.shape(self.config).positions

    def needs(self, dtype: str, context: int, batch: int) -> int:
        """Bytes of memory of a worker: itself, the weights, and what a language model keeps of a batch's tokens."""
        return BASE + self._loaded(dtype) + self._kept(dtype, context, batch)

    def needs_beside_gpu(self, dtype: str) -> int:
        """Bytes of main memory of a worker that computes on a GPU: its weights pass through here."""
        return BASE + self._loaded(dtype)

    def needs_of_gpu(self, dtype: str, context: int, batch: int) -> int:
        """Bytes of a GPU that such a worker takes."""
        return GPU_BASE + self._loaded(dtype) + self._kept(dtype, context, batch)

    def _sizes(self, dtype: str) -> dict[str, int]:
        return {kind: _BYTES.get(kind if dtype == "auto" else dtype, 1) for kind in self.weights}

    def _loaded(self, dtype: str) -> int:
        size = self._sizes(dtype)
        weights = sum(count * size[kind] for kind, count in self.weights.items())
        return 2 * weights if self.kind == "pictures" else weights + weights // 10

    def _kept(self, dtype: str, context: int, batch: int) -> int:
        if self.kind == "pictures":
            return 0
        shape, number = models.shape(self.config), max(self._sizes(dtype).values(), default=4)
        kept = 2 * shape.layers * shape.kv_heads * shape.head_size * number * min(context, shape.positions) * batch
        # A longer cache is made beside the one that it follows, one layer after the other; logits are fp32.
        logits = 2 * 4 * shape.vocabulary * batch
        return kept + kept // max(shape.layers, 1) + logits


def find(path: Path) -> Model:
    """The model at a path: an export, a `.keras` file, or a finished run that left one of them.

    Raises:
        BadInputError: There is none, or a file of it is damaged or missing; says which.
    """
    if not paths.is_there(path):
        raise BadInputError(f"{path}: there is no such file or folder that may be looked at")
    if paths.is_file(path):
        return _keras(path)
    if not os.access(path, os.R_OK | os.X_OK):
        raise BadInputError(f"{path}: this user may not read it")
    if (path / "config.json").exists() and not (path / "compressed.json").exists():
        return _language(path)
    if (path / "saved_model.pb").exists() or any(path.glob("[0-9]*/saved_model.pb")):
        raise BadInputError(
            f"{path}: is a SavedModel, for TensorFlow's own server: `stackctl serve --engine tf-serving`"
        )
    if _is_run(path) and not (path / "result.json").exists():
        raise BadInputError(f"{path}: this run has not finished: it has no result.json; wait for its end")
    if (path / "compressed.json").exists():
        return _of_ours(path, _json(path / "compressed.json"))
    inside = [found for found in _inside(path) if found.exists()]
    result = _json(path / "result.json")
    if not inside and result.get("workload") in LANGUAGE_RUNS:
        return _of_ours(path, result)
    if not inside:
        made = (
            "train it with --export, or export it" if _is_run(path) else "name a Hugging Face folder or a .keras file"
        )
        raise BadInputError(f"{path}: holds no model that can be served (config.json or *.keras); {made}")
    if len(inside) > 1:
        names = ", ".join(str(found.relative_to(path)) for found in inside)
        raise BadInputError(f"{path}: holds several models: {names}; name one of them")
    return find(inside[0])


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("job.json", "run.json", "metrics.jsonl"))


def _inside(folder: Path) -> list[Path]:
    """Where a run may have left a model."""
    found = [file.parent for file in sorted(folder.glob("*/config.json"))]
    found += [file.parent for file in sorted(folder.glob("export/*/config.json"))]
    said = _json(folder / "result.json").get("export")
    if isinstance(said, str) and (folder / said).is_dir() and not found:
        found.append(folder / said)
    return [*found, *sorted(folder.glob("*.keras")), *sorted(folder.glob("export/*.keras"))]


def _of_ours(folder: Path, about: dict[str, Any]) -> Model:
    """A run that is opened by its checkpoint, or a model of small integers; what it takes is known from its notes."""
    given = about.get("options")
    o = given if isinstance(given, dict) else {}
    names = {
        "n_layer": "layers",
        "n_head": "heads",
        "n_embd": "width",
        "n_positions": "context",
        "vocab_size": "vocab_size",
    }
    config = {key: o[name] for key, name in names.items() if isinstance(o.get(name), int)}
    if (folder / "config.json").exists():
        config = models.read_config(folder, str(folder))
    count = about.get("parameters")
    files = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return Model("language", folder, {"F32": count if isinstance(count, int) else files}, config)


def _json(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _language(folder: Path) -> Model:
    config = models.read_config(folder, str(folder))
    if config.get("quantization_config"):
        raise BadInputError(
            f"{folder}: its weights are quantized in a way that this server does not know; try --engine vllm"
        )
    if not (folder / "tokenizer.json").is_file():
        raise BadInputError(f"{folder}: has no tokenizer.json; export the model again, with its tokenizer")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadInputError(f"{folder}: has no *.safetensors; save the model again with save_pretrained")
    weights: dict[str, int] = {}
    for file in files:
        for kind, count in _numbers(file).items():
            weights[kind] = weights.get(kind, 0) + count
    return Model("language", folder, weights, config)


def _numbers(file: Path) -> dict[str, int]:
    """How many numbers of each kind a safetensors file says it holds, and that it is as long as it says."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = os.fstat(stream.fileno()).st_size
            if not 2 <= length <= size - 8:
                raise ValueError("its header is cut off")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end, counts = 0, dict[str, int]()
        for row in header.values():
            end = max(end, int(row["data_offsets"][1]))
            count = 1
            for side in row["shape"]:
                count *= int(side)
            counts[row["dtype"]] = counts.get(row["dtype"], 0) + count
        if size != 8 + length + end:
            raise ValueError(f"it has {size:,} bytes, and says {8 + length + end:,}")
    except OSError as error:
        raise BadInputError(f"{file}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadInputError(f"{file}: is damaged: {error}; copy or export it again") from None
    return counts


def _keras(file: Path) -> Model:
    if file.suffix != ".keras":
        raise BadInputError(f"{file}: is no .keras file; name a Hugging Face folder, or what Keras saved as NAME.keras")
    try:
        held = packed.sizes(file)
        if "config.json" not in held:
            raise ValueError("it has no config.json")
    except (OSError, ValueError) as error:
        raise BadInputError(f"{file}: is damaged: {error}; copy or save it again") from None
    weights = sum(size for name, size in held.items() if name.endswith((".h5", ".npz")))
    return Model("pictures", file, {"F32": weights // 4})
