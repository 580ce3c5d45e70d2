from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from stackrt.serve import options
from stackrt.serve.naming import name_of
from stackrt.train.errors import BadInputError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "0"], "--workers 0: must be from 1 to 4096"),
        (["--port", "65536"], "--port 65536: must be from 0 to 65535"),
        (["--time-limit", "nan"], "--time-limit nan: must be more than 0"),
        (["--token-file", "/nowhere"], "--token-file /nowhere: No such file"),
    ],
)
def test_a_wrong_option_is_one_line(words: list[str], said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        options.parse(["folder", *words])


def test_no_folder_for_temporary_files_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(BadInputError, match="no folder for temporary files can be written; mount one at /tmp"):
        options.parse([str(tmp_path)])


def test_a_token_is_one_word(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" secret\n")
    assert options.token(file) == "secret"
    file.write_text("two words")
    with pytest.raises(BadInputError, match="must hold one word"):
        options.token(file)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/runs/mine/export", "mine"),
        ("/models/gpt", "gpt"),
        ("/runs/mine/model.keras", "mine"),
        ("/a/digits.keras", "digits"),
        ("/runs/other/../mine/export", "mine"),
        ("/runs/mine/export/..", "mine"),
    ],
)
def test_a_model_has_its_run_s_name(path: str, name: str) -> None:
    assert name_of(Path(path)) == name
