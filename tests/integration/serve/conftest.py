"""One server of a language model and one of pictures for all tests that do not end theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.served import Served, language_model, picture_model, served, trained_model

TOKEN = "let-me-in"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the exports `words` and `trained`, and `pictures.keras`."""
    folder = tmp_path_factory.mktemp("models")
    language_model(folder / "words")
    trained_model(folder / "trained")
    picture_model(folder / "pictures.keras")
    return folder


@pytest.fixture(scope="session")
def words(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A language model, behind a token."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "token").write_text(TOKEN + "\n")
    options = ("--token-file", str(folder / "token"), "--read-timeout", "3", "--max-body", "0.5")
    with served(models / "words", folder / "log", *options) as server:
        yield server


@pytest.fixture(scope="session")
def pictures(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A model of pictures."""
    with served(
        models / "pictures.keras", tmp_path_factory.mktemp("pictures") / "log", "--read-timeout", "3"
    ) as server:
        yield server


@pytest.fixture
def request_server(words: Served, pictures: Served) -> dict[str, Served]:
    """Both, by their kind."""
    return {"words": words, "pictures": pictures}
