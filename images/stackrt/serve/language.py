"""A language model of a Hugging Face folder: its tokenizer, its weights, and the engine that computes."""

import os
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything here is local
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from tokenizers import Tokenizer

from stackrt import finished
from stackrt.serve.found import Model
from stackrt.serve.generate import Batch, plain
from stackrt.serve.options import Options
from stackrt.train.errors import BadInputError


class Words:
    """Text to tokens and back.

    Args:
        fast: transformers' tokenizer of the model.
    """

    def __init__(self, fast: Any) -> None:
        self._library = Tokenizer.from_str(fast.backend_tokenizer.to_str())
        self._library.no_truncation()
        self._library.no_padding()
        vocabulary = self._library.get_vocab()
        self.size = max(vocabulary.values(), default=-1) + 1  # there may be numbers that no token has
        self.longest = max(map(len, vocabulary), default=1)
        self._fast = fast

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
        if not getattr(self._fast, "chat_template", None):
            return _plain_chat(messages), False
        try:
            rendered = self._fast.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
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
    device = torch.device("cuda" if o.device == "cuda" or (o.device == "auto" and torch.cuda.is_available()) else "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInputError("--device cuda: no GPU is visible here")
    try:
        opened = finished.open_language_model(found.path)
    except BadInputError as error:
        raise BadInputError(str(error).removeprefix("--model ")) from None
    model: Any = opened.model
    words = Words(opened.tokenizer)
    if o.dtype != "auto":
        model.to(getattr(torch, o.dtype))
    model.to(device).eval()
    vocabulary = min(words.size, int(model.config.vocab_size))
    if words.size > int(model.config.vocab_size):
        raise BadInputError(f"{found.path}: its tokenizer knows {words.size} tokens, and the model {vocabulary}")
    refused = BadInputError(f"{found.path}: keeps more than keys and values of its tokens; serve it with --engine vllm")
    try:
        with torch.inference_mode():
            answer = model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device), use_cache=True)
    except ValueError:  # of transformers, where no layer attends
        raise refused from None
    if not bool(answer.logits.isfinite().all()):
        raise BadInputError(f"{found.path}: computes what is no number; its weights are damaged")
    cache = getattr(answer, "past_key_values", None)
    if cache is None or not plain(cache):
        raise refused
    say(f"{model.config.model_type} of {sum(p.numel() for p in model.parameters()):,} parameters on {device}")
    return Batch(model, vocabulary), words, ends(model)


def ends(model: Any) -> frozenset[int]:
    """Tokens that end a text, as the model's files name them."""
    found: set[int] = set()
    for config in (model.config, getattr(model, "generation_config", None)):
        named = getattr(config, "eos_token_id", None)
        found |= set(named if isinstance(named, list) else [] if named is None else [named])
    return frozenset(found)
