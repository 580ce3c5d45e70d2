"""Dialogues to learn from: JSONL with `messages`, written out by a chat template; only what the assistant says counts.

    {"messages": [{"role": "user", "content": "Which is larger, 3 or 8?"}, {"role": "assistant", "content": "8."}]}

transformers renders the template, so that a dialogue reads as its `apply_chat_template` writes it. No torch here.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from stackrt.train.errors import BadInputError
from stackrt.train.sources import not_json

ROLES = ("system", "developer", "user", "assistant", "tool")
ASSISTANT = "assistant"
TEMPLATE_FILE = "chat_template.jinja"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")  # around what the assistant says, in templates that have it
_LEARNED = (None, 1)  # weights of an answer, as OpenAI's format has them
_DATE = {"date_string": "26 Jul 2024"}  # what Llama's templates take for today where there is no clock: a text is fixed

Message = dict[str, Any]


class Dialogue(NamedTuple):
    """A line of a file: messages that were checked."""

    where: str
    messages: list[Message]
    tools: list[Any] | None = None


class Document(NamedTuple):
    """A text, and from where to where in it the assistant speaks, in characters."""

    text: str
    answers: list[tuple[int, int]]


# ---------------------------------------------------------------------------------------------------------------------
# Files


def read(files: Iterable[Path]) -> list[Dialogue]:
    """All dialogues of some files, in order.

    Raises:
        BadInputError: A file cannot be read, has none, or has a line that is no dialogue: names file and line.
    """
    found: list[Dialogue] = []
    for path in files:
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise BadInputError(f"--data {path}: {error.strerror}; give a readable file") from None
        found += [_dialogue(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise BadInputError(f"--data {' '.join(map(str, files))}: no dialogue in it; give a file with some")
    return found


def _dialogue(where: str, line: bytes) -> Dialogue:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"--data {where}: {not_json(line, error)}") from None
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        held = ", ".join(sorted(row)[:9]) or "nothing" if isinstance(row, dict) else f"a JSON {type(row).__name__}"
        raise BadInputError(
            f"--data {where}: has no list of 'messages', but {held}; JSONL of plain text is read by `prepare`"
        )
    for number, message in enumerate(messages, 1):
        if wrong := _wrong(message):
            raise BadInputError(f"--data {where}: message {number}: {wrong}; mend or remove the line")
    if not any(_is_learned(message) for message in messages):
        none = not any(message["role"] == ASSISTANT for message in messages)
        why = "no message of the assistant" if none else "each answer has a 'weight' of 0"
        raise BadInputError(f"--data {where}: {why}, so there is nothing to learn; remove it")
    tools = row.get("tools") or None
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise BadInputError(f"--data {where}: 'tools' must be a list of objects; mend or remove the line")
    return Dialogue(where, messages, tools)


def _is_learned(message: Message) -> bool:
    return bool(message["role"] == ASSISTANT and message.get("weight") in _LEARNED)


def _wrong(message: Any) -> str:
    """What is wrong with a message; empty for nothing."""
    if not isinstance(message, dict):
        return f"is a JSON {type(message).__name__}, and must be an object with 'role' and 'content'"
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        return f"the role {role!r} is unknown; it must be {', '.join(ROLES[:-1])} or {ROLES[-1]}"
    if not isinstance(content, str):
        return f"its 'content' is {'missing' if content is None else type(content).__name__}, and must be text"
    try:
        content.encode()
    except UnicodeEncodeError:
        return "its 'content' holds half of a surrogate pair, which is no text"
    if message.get("weight") not in (*_LEARNED, 0):
        return f"its 'weight' is {message['weight']!r}, and must be 1, or 0 for an answer that is not learned"
    return "the assistant says nothing" if role == ASSISTANT and not content.strip() else ""


# ---------------------------------------------------------------------------------------------------------------------
# Templates


@dataclass(frozen=True)
class Template:
    """How a dialogue becomes a text.

    Attributes:
        source: Jinja, as the tokenizer brings it.
        tokens: Special tokens by what the template calls them, such as `eos_token`.
        told: Where it comes from.
        own: Whether the tokenizer has it.
    """

    source: str
    tokens: dict[str, str]
    told: str
    own: bool

    @property
    def sha256(self) -> str:
        """Tells two templates apart."""
        return hashlib.sha256(repr((self.source, sorted(self.tokens.items()))).encode()).hexdigest()

    def documents(self, dialogue: Dialogue) -> list[Document]:
        """The texts of a dialogue.

        One; but where the template writes an earlier answer otherwise than the last one, as those do that leave out its
        thoughts, one for each answer, which ends there: what a model is shown when it is asked is what it learns from.

        Raises:
            BadInputError: The template refuses the dialogue, or does not say where answers are.
        """
        messages = dialogue.messages
        try:
            if _MARKS.search(self.source) and (marked := self._marked(dialogue)).answers:
                return [_weighed(marked, dialogue)]
            turns = [number for number, message in enumerate(messages) if _is_learned(message)]
            asked = [self._render(messages[:number], dialogue.tools, ask=True) for number in turns]
            told = [self._render(messages[: number + 1], dialogue.tools, ask=False) for number in turns]
        except BadInputError:
            raise
        except Exception as error:  # jinja2's own, and whatever a template runs into
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise BadInputError(f"--data {dialogue.where}: the chat template of {self.told} fails: {reason}") from None
        for question, text in zip(asked, told, strict=True):
            if not text.startswith(question) or len(text) == len(question):
                raise BadInputError(
                    f"--data {dialogue.where}: the chat template of {self.told} does not write an answer behind its "
                    "own prompt for one; mark the answers in it with {% generation %}"
                )
        spans = [(len(question), len(text)) for question, text in zip(asked, told, strict=True)]
        if all(later.startswith(text) for text, later in pairwise(told)) and all(map(told[-1].startswith, asked)):
            return [Document(told[-1], spans)]
        return [Document(text, [span]) for text, span in zip(told, spans, strict=True)]

    def _render(self, messages: Sequence[Message], tools: list[Any] | None, *, ask: bool) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        texts: Any = render_jinja_template(
            [list(messages)], tools=tools, chat_template=self.source, add_generation_prompt=ask, **_DATE, **self.tokens
        )
        return str(texts[0][0])

    def _marked(self, dialogue: Dialogue) -> Document:
        from transformers.utils.chat_template_utils import render_jinja_template

        found: Any = render_jinja_template(
            [dialogue.messages], tools=dialogue.tools, chat_template=self.source, return_assistant_tokens_mask=True,
            **_DATE, **self.tokens,
        )  # fmt: skip
        texts, spans = found
        return Document(texts[0], [(begin, end) for begin, end in spans[0] if end > begin])


def _weighed(document: Document, dialogue: Dialogue) -> Document:
    """A document whose answers are marked, without those that are not to be learned."""
    learned = [_is_learned(message) for message in dialogue.messages if message["role"] == ASSISTANT]
    if all(learned):
        return document
    if len(learned) != len(document.answers):
        raise BadInputError(
            f"--data {dialogue.where}: has a 'weight' of 0, and its chat template marks {len(document.answers)} "
            f"passages for {len(learned)} answers, so that it is not known which to leave out; remove the weight"
        )
    return Document(document.text, [span for span, is_learned in zip(document.answers, learned, strict=True)
                                    if is_learned])  # fmt: skip


def template_of(folder: Path | None) -> Template:
    """The chat template that a tokenizer's folder brings, else ChatML.

    Raises:
        BadInputError: It cannot be read.
    """
    config = _config(folder)
    tokens = {key: text for key, value in config.items() if key.endswith("_token") and (text := _text(value))}
    source: Any = config.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = {row.get("name"): row.get("template") for row in source if isinstance(row, dict)}
        source = named.get("default")
    try:
        if folder and (folder / TEMPLATE_FILE).is_file():
            source = (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInputError(f"{folder / TEMPLATE_FILE if folder else ''}: cannot be read: {error}") from None
    if not isinstance(source, str) or not source.strip():
        return Template(CHATML, tokens, "this trainer (ChatML)", own=False)
    return Template(source, tokens, str(folder), own=True)


def _config(folder: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        try:
            content: Any = json.loads((folder / name).read_text(encoding="utf-8")) if folder else {}
        except (OSError, ValueError):
            continue
        found |= content if isinstance(content, dict) else {}
    return found


def _text(token: Any) -> str:
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""


# ---------------------------------------------------------------------------------------------------------------------
# Packing


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Put documents into rows of `room` tokens, the longest first, each where least is left; none is cut.

    Returns:
        Numbers of the documents of each row.
    """
    rows: list[list[int]] = []
    left: list[list[int]] = [[] for _ in range(room + 1)]  # rows by the room they have left
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        need = lengths[number]
        free = next((free for free in range(need, room + 1) if left[free]), None)
        if free is None:
            row, free = len(rows), room
            rows.append([])
        else:
            row = left[free].pop()
        rows[row].append(number)
        left[free - need].append(row)
    return rows


def answered(tokens: Iterable[tuple[int, int]], answers: Iterable[tuple[int, int]]) -> Iterator[bool]:
    """For each token, given from where to where in the text it reaches, whether any of it is the assistant's."""
    spans = list(answers)
    at = 0
    for begin, end in tokens:
        while at < len(spans) and begin >= spans[at][1]:
            at += 1
        yield at < len(spans) and end > spans[at][0]
