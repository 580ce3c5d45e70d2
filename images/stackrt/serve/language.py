"""A language model of a Hugging Face folder: its tokenizer, its weights, and the engine that computes."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything here is local
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from stackrt.serve.found import Model
from stackrt.serve.generate import Batch, plain
from stackrt.serve.options import Options
from stackrt.train.errors import BadInputError


class Words:
    """Text to tokens and back.

    Args:
        folder: A Hugging Face folder.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._library = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library's own has no name
            raise BadInputError(f"{folder / 'tokenizer.json'}: is damaged: {error}; export the model again") from None
        self._library.no_truncation()
        self._library.no_padding()
        self.size = int(self._library.get_vocab_size())
        self.longest = max(map(len, self._library.get_vocab()), default=1)
        self._folder = folder
        self._template: Any = None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids."""
        return list(self._library.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        return str(self._library.decode(list(ids), skip_special_tokens=True))

    def number(self, token: str) -> int | None:
        """The id of a token that is written so."""
        found = self._library.token_to_id(token)
        return None if found is None else int(found)

    def chat(self, messages: Sequence[dict[str, str]]) -> tuple[str, bool]:
        """A conversation as the prompt that the model was trained on, and whether it holds its special tokens.

        Raises:
            ValueError: The model's template refuses it; says why.
        """
        if not any((self._folder / name).exists() for name in ("chat_template.jinja", "tokenizer_config.json")):
            return _plain_chat(messages), False
        if self._template is None:
            from transformers import PreTrainedTokenizerFast

            self._template = PreTrainedTokenizerFast.from_pretrained(str(self._folder))
        if not self._template.chat_template:
            return _plain_chat(messages), False
        try:
            rendered = self._template.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # whatever a template does
            raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
        return str(rendered), True


def _plain_chat(messages: Sequence[dict[str, str]]) -> str:
    """For a model that was trained on plain text: who speaks, and what they say."""
    return "".join(f"{row['role']}: {row['content']}\n" for row in messages) + "assistant:"


def load(found: Model, o: Options, say: Callable[[str], None]) -> tuple[Batch, Words, frozenset[int]]:
    """Load a model; also which tokens end a text.

    Raises:
        BadInputError: Its files do not fit together, or its cache is one that this server cannot batch.
    """
    words = Words(found.path)
    transformers.utils.logging.disable_progress_bar()
    device = torch.device("cuda" if o.device == "cuda" or (o.device == "auto" and torch.cuda.is_available()) else "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInputError("--device cuda: no GPU is visible here")
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(found.path), dtype=o.dtype if o.dtype == "auto" else getattr(torch, o.dtype),
            local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True,
        )  # fmt: skip
    except Exception as error:
        raise BadInputError(f"{found.path}: cannot be loaded: {error}") from None
    wrong = [*info["missing_keys"], *info["mismatched_keys"], *info.get("unexpected_keys", ())]
    if wrong:
        raise BadInputError(f"{found.path}: its weights are those of another model: {sorted(map(str, wrong))[0]}")
    model.to(device).eval()
    vocabulary = min(words.size, int(model.config.vocab_size))
    if words.size > int(model.config.vocab_size):
        raise BadInputError(f"{found.path}: its tokenizer knows {words.size} tokens, and the model {vocabulary}")
    with torch.inference_mode():
        answer = model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device), use_cache=True)
    if not bool(answer.logits.isfinite().all()):
        raise BadInputError(f"{found.path}: computes what is no number; its weights are damaged")
    cache = answer.past_key_values
    if cache is None or not plain(cache):
        raise BadInputError(f"{found.path}: keeps more than keys and values of its tokens; serve it with --engine vllm")
    say(f"{model.config.model_type} of {sum(p.numel() for p in model.parameters()):,} parameters on {device}")
    return Batch(model, vocabulary), words, ends(model)


def ends(model: Any) -> frozenset[int]:
    """Tokens that end a text, as the model's files name them."""
    found: set[int] = set()
    for config in (model.config, model.generation_config):
        named = getattr(config, "eos_token_id", None)
        found |= set(named if isinstance(named, list) else [] if named is None else [named])
    return frozenset(found)
