"""Which model: a preset, a Hugging Face folder or a hub's name; and what a configuration must have to be trained.

Standard library only: what cannot work is said before torch is imported.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stackrt.train import paths
from stackrt.train.errors import BadInputError

Config = dict[str, Any]
"""A `config.json`, as it is."""

TABLE = Path(__file__).parent / "data" / "models.toml"
# What a configuration must say itself: transformers would fill the rest of an almost empty one with a 7B model's.
_NEEDED = (("hidden_size", "n_embd"), ("num_hidden_layers", "n_layer"), ("num_attention_heads", "n_head"),
           ("vocab_size",))  # fmt: skip
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k")
_NUMBERS = (*(name for names in _NEEDED for name in names), "num_key_value_heads", "head_dim", "intermediate_size",
            "n_inner", "max_position_embeddings", "n_positions", *_EXPERTS, *_CHOSEN)  # fmt: skip
# Says nothing of what the model computes.
_ASIDE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Shape:
    """What of a configuration the trainer itself reckons with; `chosen` of the `experts` of a layer compute a token."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    width: int
    intermediate: int
    vocabulary: int
    positions: int
    experts: int = 0
    chosen: int = 0


@cache
def presets() -> dict[str, Config]:
    """Each preset's row of models.toml."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def is_hub_name(model: str) -> bool:
    """Whether a model is looked for on the hub: `owner/name`, and neither a preset nor a folder here."""
    return model not in presets() and not paths.is_there(model) and bool(_HUB_NAME.fullmatch(model))


def preset_settings(model: str) -> dict[str, Any]:
    """The options that a preset sets; none for another model."""
    settings: dict[str, Any] = presets().get(model, {}).get("train", {})
    return settings


def config_of(model: str) -> Config:
    """The configuration of a preset or of a folder.

    Raises:
        BadInputError: It is neither, or its configuration is missing, broken or incomplete.
    """
    if model in presets():
        shape_only = {key: value for key, value in presets()[model].items() if key != "train"}
        return shape_only | {"bos_token_id": None, "eos_token_id": None}  # whatever the tokenizer is
    if not paths.is_folder(model):
        raise BadInputError(
            f"--model {model}: neither a preset ({', '.join(presets())}), nor a folder, nor a hub's OWNER/NAME"
        )
    return read_config(Path(model), f"--model {model}")


def folder_of(model: str) -> Path | None:
    """The folder that a model is; None for a preset, whatever lies about under its name."""
    return Path(model) if model not in presets() and paths.is_folder(model) else None


def read_config(folder: Path, told: str) -> Config:
    """The configuration of a Hugging Face folder; `told` begins an error.

    Raises:
        BadInputError: It is missing, broken or incomplete.
    """
    path = folder / "config.json"
    try:
        config: Config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"{told}: config.json: {error.strerror}; name a Hugging Face model's folder") from None
    except ValueError as error:
        raise BadInputError(f"{told}: config.json is no JSON: {error}") from None
    if not isinstance(config, dict) or not config.get("model_type"):
        raise BadInputError(f"{told}: config.json does not say its model_type")
    missing = [" or ".join(names) for names in _NEEDED if not any(config.get(name) for name in names)]
    if missing:
        raise BadInputError(f"{told}: config.json is incomplete: it lacks {', '.join(missing)}")
    for name in _NUMBERS:
        value = config.get(name)
        if value is not None and (type(value) is not int or value < 0):
            raise BadInputError(f"{told}: config.json: {name} is {value!r}, and must be a number")
    return config


def shape(config: Config) -> Shape:
    """A configuration's numbers, under one name each."""

    def number(*names: str, otherwise: int = 0) -> int:
        return next((int(config[name]) for name in names if config.get(name)), otherwise)

    width, heads = number("hidden_size", "n_embd"), number("num_attention_heads", "n_head")
    return Shape(
        layers=number("num_hidden_layers", "n_layer"),
        heads=heads,
        kv_heads=number("num_key_value_heads", otherwise=heads),
        head_size=number("head_dim", otherwise=width // max(heads, 1)),
        width=width,
        intermediate=number("intermediate_size", "n_inner", otherwise=4 * width),
        vocabulary=number("vocab_size"),
        positions=number("max_position_embeddings", "n_positions", otherwise=1 << 30),
        experts=number(*_EXPERTS),
        chosen=number(*_CHOSEN, otherwise=1),
    )


def fits(model: str, config: Config, context: int, tp: int) -> None:
    """See that a configuration can be trained as the options want.

    Raises:
        BadInputError: Says which number does not fit.
    """
    size = shape(config)
    whole = bool(config.get("head_dim")) or size.width % size.heads == 0
    rules = (
        (whole, f"--model {model}: its width, {size.width}, must be a multiple of its {size.heads} attention heads"),
        (
            size.heads % size.kv_heads == 0,
            f"--model {model}: its {size.kv_heads} key-value heads must divide its {size.heads} attention heads",
        ),
        (size.heads % tp == 0, f"--tp {tp}: must divide the {size.heads} attention heads of {model}"),
        (size.kv_heads % tp == 0, f"--tp {tp}: must divide the {size.kv_heads} key-value heads of {model}"),
        (size.intermediate % tp == 0, f"--tp {tp}: must divide {size.intermediate}, the inner width of {model}"),
        (context <= size.positions, f"--context {context}: {model} has {size.positions:,} positions"),
    )
    for holds, told in rules:
        if not holds:
            raise BadInputError(told)


def plain(config: Config) -> Config:
    """A configuration without what its class says itself, and without the type of its weights."""
    return {key: value for key, value in config.items() if key not in ("model_type", "dtype", "torch_dtype")}


def identity(config: Config) -> dict[str, Any]:
    """What of a configuration makes another model when it differs."""
    return {key: value for key, value in sorted(config.items()) if key not in _ASIDE}
