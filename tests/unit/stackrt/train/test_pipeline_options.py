"""The pipeline's options: how layers become stages, and what is refused."""

from __future__ import annotations

import pytest

from stackrt.train import pipeline_options
from stackrt.train.errors import BadInputError


def parse(*words: str) -> pipeline_options.Options:
    return pipeline_options.parse(words)


def test_layers_are_dealt_to_stages_in_their_order() -> None:
    assert pipeline_options.split(parse("--layers", "8"), 2) == [range(4), range(4, 8)]
    assert pipeline_options.split(parse("--layers", "5"), 2) == [range(3), range(3, 5)]
    assert pipeline_options.split(parse("--layers", "7"), 1) == [range(7)]
    cut = pipeline_options.split(parse("--layers", "9", "--schedule", "interleaved"), 2)
    assert cut == [range(3), range(3, 5), range(5, 7), range(7, 9)]


def test_the_bubble_is_that_of_the_paper() -> None:
    assert pipeline_options.idle_share(parse("--microbatches", "4"), 2) == pytest.approx(1 / 5)
    assert pipeline_options.idle_share(parse("--schedule", "interleaved"), 2) == pytest.approx(1 / 9)
    assert pipeline_options.idle_share(parse(), 1) == 0


@pytest.mark.parametrize(
    ("words", "world", "told"),
    [
        ("--layers 3", "4", "--layers 3: 4 ranks are 4 stages by --schedule 1f1b"),
        ("--layers 3 --schedule interleaved", "2", "2 ranks are 4 stages by --schedule interleaved"),
        (
            "--schedule interleaved --microbatches 3 --batch-size 3",
            "2",
            "--microbatches 3: must be a multiple of the 2 r",
        ),
        ("--batch-size 10 --microbatches 4", "1", "--batch-size 10: must be a multiple of --microbatches"),
        ("--microbatches 0", "1", "--microbatches 0: must be 1 or more"),
        ("--lr nan", "1", "--lr nan"),
        ("--context 4096", "1", "--context 4096: llama-tiny has 1,024 positions"),
        ("--model nobody-knows", "1", "--model nobody-knows: neither a preset"),
    ],
)
def test_what_cannot_work(words: str, world: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(BadInputError) as raised:
        parse(*words.split())
    assert told in str(raised.value)
