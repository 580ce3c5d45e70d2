from __future__ import annotations

import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs import job as jobs
from stackctl.jobs import lengths


def test_a_job_of_usual_length() -> None:
    lengths.check(jobs.make(name="a", arguments=["python", "-c", "x" * 100_000]))


@pytest.mark.parametrize(
    ("words", "env", "where", "said"),
    [
        (
            ["true", *["w" * 999] * 300],
            {},
            "the command (true …, 301 words)",
            "294 KiB long, and a cluster",
        ),
        (["true", "x" * 140_000], {}, "word 2 of the command", "is 137 KiB long, and Linux takes 128 KiB"),
        (["true"], {"A": "x" * 140_000}, "--env A", "is 137 KiB long"),
    ],
)
def test_what_is_too_long_is_named(words: list[str], env: dict[str, str], where: str, said: str) -> None:
    job = jobs.make(name="a", arguments=words, env=env)
    with pytest.raises(InvalidInput, match=said) as found:
        lengths.check(job)
    assert found.value.where == where
    assert "--code" in found.value.hint
