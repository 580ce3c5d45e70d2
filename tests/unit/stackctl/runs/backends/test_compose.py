from __future__ import annotations

import pytest

from stackctl.engines import docker
from stackctl.errors import MissingHere
from stackctl.jobs import job as jobs
from stackctl.runs.backends import compose
from stackctl.runs.backends.base import image_of


@pytest.mark.parametrize(
    ("gpus", "image", "told"),
    [
        (0, None, "stackctl build pytorch --variant cpu"),  # not every variant: the other takes a quarter of an hour
        (2, None, "stackctl build pytorch --variant cuda"),
        (0, "mine:1", "docker pull mine:1"),
    ],
)
def test_the_image_that_is_not_there_is_what_is_to_be_built(
    gpus: int, image: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "require", lambda _plugin: None)
    monkeypatch.setattr(docker, "image", lambda _name: None)
    job = jobs.make(name="a", workload="gpt", gpus=gpus, image=image)
    with pytest.raises(MissingHere) as error:
        compose._need(image_of(job), job.image)
    assert f"`{told}`" in error.value.hint
