from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from stackctl.cli import complete
from stackctl.cli.data import data
from stackctl.errors import InvalidInput, JobFailed
from stackrt.pictures import known


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(known.FOLDER, str(tmp_path))
    folder = tmp_path / "mnist"
    folder.mkdir()
    for file in known.load()["mnist"].files:
        (folder / file.name).write_bytes(b"not it")
    return tmp_path


def run(*words: str) -> str:
    done = CliRunner().invoke(data, list(words))
    if done.exception:
        raise done.exception
    return done.output


def test_the_list_says_what_is_here(sets: Path) -> None:
    lines = run("list").splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["digits", "ships"], ["fashion-mnist", "absent"], ["mnist", "fetched"], ["cifar10", "absent"],
    ]  # fmt: skip
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert rows["mnist"]["path"] == str(sets / "mnist")


def test_a_path_is_that_of_a_set_that_is_here(sets: Path) -> None:
    assert run("path", "mnist") == f"{sets / 'mnist'}\n"
    assert json.loads(run("path", "mnist", "--json")) == {"mnist": str(sets / "mnist")}
    with pytest.raises(InvalidInput, match="cifar10 is not here"):
        run("path", "cifar10")
    with pytest.raises(InvalidInput, match="no data set is named"):
        run("path", "minst")


@pytest.mark.usefixtures("sets")
def test_damage_is_told_file_by_file() -> None:
    with pytest.raises(JobFailed, match="damaged or incomplete: mnist") as failed:
        run("verify")
    assert failed.value.hint == "stackctl data fetch mnist"
    done = CliRunner().invoke(data, ["verify", "mnist", "--json"])
    found = json.loads(done.stdout)
    assert len(found["mnist"]) == 4
    assert "has another hash" in found["mnist"][0]["what"]


def test_names_are_completed() -> None:
    context, argument = data.make_context("data", ["list"]), data.commands["fetch"].params[0]
    assert complete.sets(context, argument, "m") == ["mnist"]
    assert "digits" not in complete.sets(context, argument, "")
