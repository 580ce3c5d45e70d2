"""Dialogues: what a file must hold, which part of a text is the assistant's, and how texts are packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stackrt.finetune import chat
from stackrt.train.errors import BadInputError

GREETING = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!"}]
AGAIN = [*GREETING, {"role": "user", "content": "Bye."}, {"role": "assistant", "content": "Good bye!"}]
# As some templates do: the thoughts of the last answer alone are written out.
FORGETS = (
    "{% for m in messages %}{{ '[' + m.role + ']' }}{% if m.role == 'assistant' and loop.last %}{{ '<think></think>' }}"
    "{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
MARKS = (
    "{% for m in messages %}{{ '[' + m.role + ']' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '.' }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


def spoken(documents: list[chat.Document]) -> list[list[str]]:
    return [[document.text[begin:end] for begin, end in document.answers] for document in documents]


def template(source: str) -> chat.Template:
    return chat.Template(source, {}, "the test", own=True)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"messages": [', "is not JSON: "),
        (b'{"messages": "\xff"}', "is not UTF-8"),
        ("[1]", "has no list of 'messages', but a JSON list"),
        ('{"text": "x"}', "has no list of 'messages', but text; JSONL of plain text is read by `prepare`"),
        ('{"messages": []}', "has no list of 'messages'"),
        ({"messages": ["x"]}, "message 1: is a JSON str, and must be an object with 'role' and 'content'"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "message 1: the role 'bot' is unknown; it must be system, "),
        ({"messages": [GREETING[0], {"role": "assistant"}]}, "message 2: its 'content' is missing, and must be text"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "message 1: its 'content' is list, and must be text"),
        ({"messages": [GREETING[0], {"role": "assistant", "content": " \n"}]}, "message 2: the assistant says nothing"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half of a surrogate pair"),
        ({"messages": [GREETING[0], GREETING[1] | {"weight": 2}]}, "message 2: its 'weight' is 2, and must be 1, or 0"),
        ({"messages": [GREETING[0], GREETING[1] | {"weight": 0}]}, "each answer has a 'weight' of 0, so there is"),
        ({"messages": GREETING, "tools": "[]"}, "'tools' must be a list of objects"),
        ({"messages": GREETING[:1]}, "no message of the assistant, so there is nothing to learn"),
    ],
)
def test_a_line_that_is_no_dialogue_is_named(line: Any, told: str, tmp_path: Path) -> None:
    content = line if isinstance(line, str | bytes) else json.dumps(line)
    content = content if isinstance(content, bytes) else content.encode()
    path = tmp_path / "my.jsonl"
    path.write_bytes(json.dumps({"messages": GREETING}).encode() + b"\n\n" + content + b"\n")
    with pytest.raises(BadInputError) as caught:
        chat.read([path])
    assert str(caught.value).startswith(f"--data {path}:3: ")
    assert told in str(caught.value)


def test_a_file_without_dialogues_is_named(tmp_path: Path) -> None:
    (tmp_path / "my.jsonl").write_text("\n")
    with pytest.raises(BadInputError, match=r"my\.jsonl: no dialogue in it"):
        chat.read([tmp_path / "my.jsonl"])
    with pytest.raises(BadInputError, match=r"none\.jsonl: No such file or directory"):
        chat.read([tmp_path / "none.jsonl"])


@pytest.mark.needs("torch")
def test_the_assistant_s_part_is_what_follows_its_prompt() -> None:
    (document,) = chat.template_of(None).documents(chat.Dialogue("x:1", AGAIN))
    assert document.text.startswith("<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n")
    assert spoken([document]) == [["Hello!<|im_end|>\n", "Good bye!<|im_end|>\n"]]
    # Nothing is learned from what a user says last.
    (cut,) = chat.template_of(None).documents(chat.Dialogue("x:1", [*AGAIN, AGAIN[0]]))
    assert cut == document


@pytest.mark.needs("torch")
def test_a_template_that_forgets_gives_a_text_an_answer() -> None:
    documents = template(FORGETS).documents(chat.Dialogue("x:1", AGAIN))
    assert [document.text for document in documents] == [
        "[user]Hi.[assistant]<think></think>Hello!",
        "[user]Hi.[assistant]Hello![user]Bye.[assistant]<think></think>Good bye!",
    ]
    assert spoken(documents) == [["<think></think>Hello!"], ["<think></think>Good bye!"]]


@pytest.mark.needs("torch")
def test_a_template_s_own_marks_win() -> None:
    documents = template(MARKS).documents(chat.Dialogue("x:1", AGAIN))
    assert spoken(documents) == [["Hello!.", "Good bye!."]]


@pytest.mark.needs("torch")
@pytest.mark.parametrize("source", [chat.CHATML, MARKS, FORGETS])
def test_an_answer_of_no_weight_is_read_and_not_learned(source: str) -> None:
    once = template(source)
    twice: list[dict[str, Any]] = [*AGAIN[:3], AGAIN[3] | {"weight": 1}]
    (first,) = spoken(once.documents(chat.Dialogue("x:1", [*twice[:3], twice[3] | {"weight": 0}])))
    assert "Hello!" in "".join(first)
    assert "Good bye!" not in "".join(first)
    (last,) = once.documents(chat.Dialogue("x:1", [twice[0], twice[1] | {"weight": 0}, *twice[2:]]))
    assert "Hello!" in last.text
    assert "Hello!" not in "".join(*spoken([last]))
    assert "Good bye!" in "".join(*spoken([last]))


@pytest.mark.needs("torch")
def test_a_template_is_given_the_tools() -> None:
    source = "{{ (tools or [{'name': 'none'}])[0].name }}:" + FORGETS
    asked = chat.Dialogue("x:1", GREETING, [{"name": "clock"}])
    assert template(source).documents(asked)[0].text.startswith("clock:[user]")
    assert template(source).documents(chat.Dialogue("x:1", GREETING))[0].text.startswith("none:[user]")


@pytest.mark.needs("torch")
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ raise_exception('roles must alternate') }}", "the chat template of the test fails: roles must alternate"),
        ("{% for %}", "the chat template of the test fails: "),
        ("{{ nothing.at.all }}", "the chat template of the test fails: 'nothing' is undefined"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}{{ add_generation_prompt }}", "behind its own prompt for"),
        ("always the same", "mark the answers in it with {% generation %}"),
    ],
)
def test_a_template_that_fails_is_named_with_the_line(source: str, told: str) -> None:
    with pytest.raises(BadInputError) as caught:
        template(source).documents(chat.Dialogue("my.jsonl:7", GREETING))
    assert str(caught.value).startswith("--data my.jsonl:7: ")
    assert told in str(caught.value)


def test_a_tokenizer_s_template_is_found_where_transformers_writes_it(tmp_path: Path) -> None:
    assert not chat.template_of(tmp_path).own
    config: dict[str, Any] = {"chat_template": "one", "eos_token": {"content": "</s>"}, "bos_token": "<s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = chat.template_of(tmp_path)
    assert (found.source, found.tokens) == ("one", {"eos_token": "</s>", "bos_token": "<s>"})
    config["chat_template"] = [{"name": "tools", "template": "x"}, {"name": "default", "template": "two"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert chat.template_of(tmp_path).source == "two"
    (tmp_path / "chat_template.jinja").write_text("three")
    assert chat.template_of(tmp_path).source == "three"
    assert chat.template_of(tmp_path).sha256 != found.sha256


def test_texts_are_packed_whole_and_closely() -> None:
    lengths = [5, 3, 8, 2, 2, 4, 7, 1]
    rows = chat.pack(lengths, 8)
    assert sorted(number for row in rows for number in row) == list(range(8))
    assert [sum(lengths[number] for number in row) for row in rows] == [8, 8, 8, 8]
    assert chat.pack([], 8) == []


def test_a_token_counts_where_it_reaches_into_an_answer() -> None:
    tokens = [(0, 2), (2, 4), (4, 7), (7, 8), (7, 10), (10, 12), (12, 12)]
    assert list(chat.answered(tokens, [(2, 5), (9, 10)])) == [False, True, True, False, True, False, False]
