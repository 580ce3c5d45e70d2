"""The tokenizer of an exported model: its files as transformers reads them, whatever the tokenizer came from."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from stackrt.train import vocabulary
from stackrt.train.report import write_atomically, writing
from stackrt.train.shard_files import INDEX, TOKENIZER

CONFIG, GENERATION = "tokenizer_config.json", "generation_config.json"
TEMPLATE = "chat_template.jinja"
_COPIED = (TOKENIZER, CONFIG, GENERATION, "special_tokens_map.json", TEMPLATE)


@cache
def byte_definition() -> str:
    """One token a byte as a `tokenizer.json`: byte-level BPE that has learned nothing, with bytes as ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    library = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in enumerate(_letters())}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    return str(library.to_str())


def is_bytes(definition: str) -> bool:
    """Whether a `tokenizer.json` is that of bytes."""
    same: bool = json.loads(definition) == json.loads(byte_definition())
    return same


def _letters() -> list[str]:
    """The letter that stands for each byte in byte-level BPE: itself if it can be printed, else one past Latin-1."""
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = {byte: chr(0x100 + number) for number, byte in enumerate(b for b in range(256) if b not in printed)}
    return [others.get(byte, chr(byte)) for byte in range(256)]


def write(folder: Path, tokenizer: Path | str | None, positions: int, template: str = "") -> int | None:
    """Write the tokenizer of an exported model, and what else of its files is no weight, beside its weights.

    Args:
        folder: The export.
        tokenizer: The folder that the tokenizer came from, its definition, or None for bytes.
        positions: The longest text that the model takes, in tokens.
        template: The chat template, where the tokenizer brings none.

    Returns:
        The id of the token that ends a text, if there is one.

    Raises:
        TrainerError: The disk is full or failing.
    """
    source = tokenizer if isinstance(tokenizer, Path) else None
    if source is None or source.resolve() != folder.resolve():
        with writing(folder):
            for name in _COPIED:
                (folder / name).unlink(missing_ok=True)  # an earlier export's
                if source and (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)
    if not (folder / TOKENIZER).exists():
        write_atomically(folder / TOKENIZER, tokenizer if isinstance(tokenizer, str) else byte_definition())
    if not (folder / CONFIG).exists():
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": positions,
            "clean_up_tokenization_spaces": False,
        }  # fmt: skip
        end = _noted_end(source) if source else None
        if end is not None:
            from tokenizers import Tokenizer

            config["eos_token"] = Tokenizer.from_file(str(folder / TOKENIZER)).id_to_token(end)
        write_atomically(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    if template:
        write_atomically(folder / TEMPLATE, template)
    return vocabulary.given(str(folder)).end


def _noted_end(prepared: Path) -> int | None:
    """The end of a text, where the tokenizer is that of a folder that `prepare` wrote."""
    try:
        end = json.loads((prepared / INDEX).read_text(encoding="utf-8"))["tokenizer"]["end"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return end if isinstance(end, int) else None
