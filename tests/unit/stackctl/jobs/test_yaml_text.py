import random

import pytest
import yaml

from stackctl.jobs.yaml_text import to_yaml

WORDS = """true True yes NO on off null Null ~ y n 1 1.5 1e3 0x1f 1_000 .5 .inf -.inf .nan 2020-01-01 = << - -- --- ...
-x : :a a:b a:b: 12:30:45 0o14 a#b # ? ! a, [a {a 'a a' "a &a *a |a >a %a @a `a a/b $(A) $A - 8Gi
1e 0xf 0b 1b 2E5 $ ${A:-b}"""
SIGNS = "aA0:- '\"#\n\t\\{}[],&*!|>%@`~?=<.$()/_eéyN\x00\x7f\x85\u2028\ufeff\U0001f600"


def test_it_is_read_as_it_was_in_the_order_of_its_keys() -> None:
    document = {"b": {"a": [{"x": 1, "y": [1, 2]}, [["z"]], {}, []], "n": None}, "a": True, "c": "two\nlines"}
    text = to_yaml(document)
    assert yaml.safe_load(text) == document
    assert text.splitlines()[:6] == ["b:", "  a:", "  - x: 1", "    'y':", "    - 1", "    - 2"]


@pytest.mark.parametrize("word", [*WORDS.split(), "a #b", "a: b", " a", "a ", "", "a b", "it's"])
def test_text_stays_text(word: str) -> None:
    document = {"value": word, "list": [word], word: "key"}
    assert yaml.safe_load(to_yaml(document)) == document


def test_any_signs_stay_what_they_are() -> None:
    signs = random.Random(1)
    for _ in range(5000):
        text = "".join(signs.choices(SIGNS, k=signs.randint(1, 8)))
        assert yaml.safe_load(to_yaml({"value": text})) == {"value": text}


def test_a_value_that_occurs_twice_is_written_twice() -> None:
    shared = {"a": 1}
    assert to_yaml({"x": shared, "z": shared}) == "x:\n  a: 1\nz:\n  a: 1\n"


def test_what_only_kubectl_takes_for_a_number_is_quoted() -> None:
    assert to_yaml({"args": ["--lr", "1e-3"]}) == "args:\n- --lr\n- '1e-3'\n"
