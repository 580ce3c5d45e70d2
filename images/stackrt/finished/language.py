"""A language model that training left: opened from a run's checkpoint, a Hugging Face folder, or small integers."""

import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything here is local
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from safetensors import SafetensorError
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as read_state
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from stackrt.finished import folder, quantized
from stackrt.finished.folder import Found
from stackrt.train import checkpoint, mesh, models, paths, prepared, sharded, tokenizer_files, vocabulary
from stackrt.train import text as texts
from stackrt.train.errors import BadInputError
from stackrt.train.shard_files import TOKENIZER
from stackrt.train.shards import Shards

_CAUSAL = ("ForCausalLM", "LMHeadModel")


class LanguageModel(NamedTuple):
    """A model to compute with.

    Attributes:
        model: Called with `input_ids`, returns an object with `logits`; in eval mode, on the CPU.
        tokenizer: A `PreTrainedTokenizerFast`.
        config: Its `config.json`.
    """

    model: nn.Module
    tokenizer: Any
    config: dict[str, Any]


def open_model(path: Path, told: str = "--model") -> LanguageModel:
    """See `stackrt.finished.open_language_model`; `told` is the option that named it."""
    found = folder.find(path, told)
    told = f"{told} {path}"
    if found.kind == "keras":
        raise BadInputError(f"{told}: is a Keras model, and no language model")
    if found.kind == "compressed":
        return _compressed(found, told)
    if found.kind == "run" and found.workload not in folder.LANGUAGE_RUNS:
        raise BadInputError(f"{told}: is a run of {found.workload or 'another program'}, and no language model")
    if found.kind == "export" or found.export:
        return _export(found.export or path, told)
    return _gpt_run(found, told) if found.workload == "gpt" else _lm_run(found, told)


def tokenizer_of(definition: str) -> Any:
    """A tokenizer from its JSON; empty for one token a byte."""
    from tokenizers import Tokenizer

    library = Tokenizer.from_str(definition or tokenizer_files.byte_definition())
    return PreTrainedTokenizerFast(tokenizer_object=library, clean_up_tokenization_spaces=False)


def words_of(tokenizer: Any) -> texts.Tokenizer:
    """A model's tokenizer as the trainers have it: bytes are taken as they are, whether UTF-8 or not."""
    definition = tokenizer.backend_tokenizer.to_str()
    held, plain = json.loads(definition), json.loads(tokenizer_files.byte_definition())
    # transformers adds a post-processor, which adds nothing.
    same = all(held[part] == plain[part] for part in ("model", "normalizer", "pre_tokenizer", "added_tokens"))
    return texts.ByteTokenizer() if same else texts.BpeTokenizer(definition)


# ---------------------------------------------------------------------------------------------------------------------
# Hugging Face folders


def _export(path: Path, told: str) -> LanguageModel:
    config = models.read_config(path, told)
    named = config.get("architectures")
    made = [str(name) for name in named] if isinstance(named, list) else []
    if made and not any(name.endswith(_CAUSAL) for name in made):
        raise BadInputError(f"{told}: holds a {made[0]}, and no causal language model")
    for file in sorted(path.glob("*.safetensors")):
        try:
            paths.see_readable(file)
        except OSError as error:
            raise BadInputError(f"{told}: {file.name}: {error.strerror}") from None
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            path, dtype="auto", local_files_only=True, output_loading_info=True
        )
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise BadInputError(f"{told}: its weights cannot be read: {_first_line(error)}") from None
    except Exception as error:  # whatever a configuration class has against its values
        raise BadInputError(f"{told}: transformers cannot use its config.json: {_told(error)}") from None
    for kind, said in (("missing_keys", "lacks"), ("mismatched_keys", "has in another shape")):
        for name in sorted(map(str, info.get(kind) or ())):
            raise BadInputError(f"{told}: the weights are another model's than config.json says: it {said} {name}")
    return LanguageModel(model.eval(), _tokenizer(path, told), config)


def _tokenizer(path: Path, told: str) -> Any:
    if not paths.is_file(path / TOKENIZER):
        raise BadInputError(f"{told}: has no {TOKENIZER}; export it again, or copy it there")
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the library has one kind for all
        raise BadInputError(f"{told}: {TOKENIZER} cannot be used: {_first_line(error)}") from None


def _compressed(found: Found, told: str) -> LanguageModel:
    if not paths.is_file(found.path / quantized.FILE):  # what transformers itself can open
        return _export(found.path, told)
    config = models.read_config(found.path, told)
    model = _skeleton(config, told)
    quantized.fill(model, found.path, str(found.about.get("scheme")), told)
    return LanguageModel(_whole(model), _tokenizer(found.path, told), config)


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def _gpt_run(found: Found, told: str) -> LanguageModel:
    from stackrt.train import gpt, options

    path = _checkpoint(found, told)
    try:
        state = checkpoint.load(path)
    except checkpoint.Damaged as damage:
        raise BadInputError(f"{told}: {path.name} is refused: {damage}") from None
    except OSError as error:
        raise BadInputError(f"{told}: {path}: {error.strerror}") from None
    o = options.parse([])
    values = {**vars(o), **{key: value for key, value in state["options"].items() if key in vars(o)}}
    model = gpt.build_with_transformers(gpt.model_config(options.Options(**values)))
    model.load_state_dict(state["model"])
    config: Any = model.config
    config.use_cache = True
    definition = _definition(found, told, learns=values["tokenizer"] == "bpe")
    return LanguageModel(model.eval(), tokenizer_of(definition), config.to_dict())


def _lm_run(found: Found, told: str) -> LanguageModel:
    name = str(found.options.get("model"))
    config = models.config_of(name)
    model = _skeleton(config, told)
    path = _checkpoint(found, told)
    sharded.prove(path, told)
    held = dict(model.named_parameters())
    for parameter_name, parameter in held.items():
        owner, _, last = parameter_name.rpartition(".")
        setattr(model.get_submodule(owner), last, nn.Parameter(torch.empty_like(parameter, device="cpu")))
    model.tie_weights()  # type: ignore[operator]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        read_state({"model": dict(model.named_parameters())}, storage_reader=FileSystemReader(path))
    values: Any = model.config
    return LanguageModel(_whole(model), tokenizer_of(_definition(found, told)), values.to_dict())


def _checkpoint(found: Found, told: str) -> Path:
    name = found.result.get("checkpoint")
    if not isinstance(name, str) or not paths.is_there(found.path / name):
        raise BadInputError(f"{told}: its checkpoint is not there any more, nor an export; train again with --export")
    return found.path / name


def _definition(found: Found, told: str, learns: bool = False) -> str:
    """The JSON of the tokenizer that a run used; empty for bytes."""
    data = [Path(path) for path in found.options.get("data", ())]
    named = str(found.options.get("tokenizer") or "")
    try:
        if prepared.is_prepared(data):
            return vocabulary.kept(data[0], Shards(data[0]).tokenizer).definition
        if learns:
            text = texts.split_text(texts.read_text(data), float(found.options["val_fraction"]))[0]
            return texts.train_bpe(text, int(found.options["vocab_size"]))
        model = models.folder_of(str(found.options.get("model", "")))
        source = Path(named) if named not in ("", "byte", "bpe") else model if not named else None
        file = source / TOKENIZER if source else None
        return file.read_text(encoding="utf-8") if file and (named or paths.is_file(file)) else ""
    except (BadInputError, OSError) as error:
        raise BadInputError(
            f"{told}: its tokenizer is not there any more ({_first_line(error)}); train with --export, which keeps it"
        ) from None


# ---------------------------------------------------------------------------------------------------------------------
# Skeletons


def _skeleton(config: models.Config, told: str) -> nn.Module:
    model = mesh.skeleton(config, told)
    values: Any = model.config
    values.use_cache = True
    return model


def _whole(model: nn.Module) -> nn.Module:
    """What a file does not hold, as tables of rotary angles, is made by the model itself."""
    initialize: Any = model._init_weights
    for module in model.modules():
        own = [*module._parameters.values(), *module._buffers.values()]
        if any(tensor is not None and tensor.is_meta for tensor in own):
            module.to_empty(device="cpu", recurse=False)
            initialize(module)
    return model.eval().requires_grad_(False)


def _told(error: BaseException) -> str:
    """What a library says, in one line: some put into the first one only where it happened."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _first_line(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]


logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
