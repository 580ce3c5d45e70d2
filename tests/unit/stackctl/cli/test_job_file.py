from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.testing import CliRunner

from stackctl.cli import job_file
from stackctl.cli.main import cli
from stackctl.cli.run import run
from stackctl.cli.submit import submit
from stackctl.errors import InvalidInput
from tests.commands import ROOT

COMMANDS: Mapping[str, click.Command] = {"run": run, "submit": submit}

SCHEMA = json.loads((ROOT / "docs" / "reference" / "job.schema.json").read_text())

OPTIONS = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option) and option.name not in job_file.OWN
]


def parsed(name: str, *words: str) -> click.Context:
    """A command's context after its line was read, as click has it before the command runs."""
    return COMMANDS[name].make_context(name, list(words))


def values(context: click.Context) -> dict[str, Any]:
    return {**context.params, "behind": context.meta.get("stackctl.rest", ())}


def sample(name: str, option: click.Option) -> tuple[Any, list[str]]:
    """A value for an option, other than its default: as a file has it, and as words of the command line."""
    word = max(option.opts, key=len)
    key = job_file.keys(COMMANDS[name])[word.removeprefix("--")]
    if key.kind == "flag":
        off = option.secondary_opts
        return (False, off) if off else (True, [word])
    if key.kind in ("integer", "number"):
        return 7, [word, "7"]
    if key.choices and key.many:
        return [*key.choices[:2]], [part for choice in key.choices[:2] for part in (word, choice)]
    if key.choices:
        other = next(choice for choice in key.choices if choice != option.default)
        return other, [f"{word}={other}"]
    if key.many:
        rows = ["A=b", "C=d=e"] if key.pairs else ["one", "two"]
        return rows, [part for row in rows for part in (word, row)]
    return "some", [word, "some"]


def written(folder: Path, text: str) -> str:
    (folder / "job.toml").write_text(text)
    return str(folder / "job.toml")


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=[f"{name} {max(row.opts, key=len)}" for name, row in OPTIONS])
def test_every_option_is_a_key(
    name: str, option: click.Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own name, with the same outcome, within the published schema; whatever options there will be."""
    monkeypatch.chdir(tmp_path)
    word = max(option.opts, key=len)
    value, line = sample(name, option)
    (tmp_path / "job.toml").write_text(f"{word.removeprefix('--')} = {json.dumps(value)}\n")
    from_file = values(parsed(name, "-f", "job.toml"))
    assert from_file == values(parsed(name, *line))
    assert from_file != values(parsed(name)), "it is not what is so anyway"
    jsonschema.validate({word.removeprefix("--"): value}, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({word.removeprefix("--"): [{}]}, SCHEMA)


def test_the_schema_knows_nothing_else() -> None:
    known = {max(option.opts, key=len).removeprefix("--") for _, option in OPTIONS}
    assert SCHEMA["properties"].keys() == known | {"workload", "arguments", "command"}
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_tables_and_bare_words(tmp_path: Path) -> None:
    text = 'dry-run = true\ncpu = 8\n[env]\nA = "b=c"\nN = 3\n[label]\n"example.com/team" = "vision"\n'
    file = written(tmp_path, text)
    found = values(parsed("submit", "-f", file))
    assert found["env"] == ("A=b=c", "N=3")
    assert found["labels"] == ("example.com/team=vision",)
    assert (found["cpu"], found["dry_run"]) == ("8", "client")
    assert values(parsed("submit", "-f", written(tmp_path, "dry-run = false\n")))["dry_run"] is None


def test_the_command_line_wins(tmp_path: Path) -> None:
    file = written(tmp_path, 'nodes = 4\nvolume = ["a", "b:/b"]\npreflight = false\n[env]\nA = "1"\nB = "2"\n')
    found = values(parsed("submit", "--nodes", "2", "-f", file, "--volume", "c", "--env", "B=3", "--preflight"))
    assert (found["nodes"], found["volumes"], found["preflight"]) == (2, ("c",), True)
    assert found["env"] == ("A=1", "B=3"), "variables are replaced one by one"


@pytest.mark.parametrize(
    ("text", "line", "words", "behind"),
    [
        ('workload = "gpt"\narguments = ["--steps", "2"]', [], ("gpt",), ("--steps", "2")),
        ('workload = "gpt"\narguments = ["--steps", "2"]', ["--", "--steps", "9"], ("gpt",), ("--steps", "9")),
        ('workload = "gpt"\narguments = ["--steps", "2"]', ["cnn"], ("cnn",), ()),
        ('command = ["python", "a.py"]', [], (), ("python", "a.py")),
        ('command = ["python", "a.py"]', ["--", "true"], (), ("true",)),
        ('command = ["python", "a.py"]', ["gpt"], ("gpt",), ()),
        ("", ["gpt", "--", "x"], ("gpt",), ("x",)),
        ('arguments = ["x"]', ["--", "y"], (), ("y",)),
    ],
)
def test_what_runs(text: str, line: list[str], words: tuple[str, ...], behind: tuple[str, ...], tmp_path: Path) -> None:
    context = parsed("submit", "-f", written(tmp_path, text), *line)
    assert (context.params["words"], context.meta.get("stackctl.rest", ())) == (words, behind)


def test_paths_are_meant_from_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    text = 'code = ".."\npatch = "/abs/patch.yaml"\nprofile = "../mine.toml"\n'
    (tmp_path / "jobs" / "job.toml").write_text(text)
    found = values(parsed("submit", "-f", "jobs/job.toml"))
    assert (str(found["code"]), str(found["patch"])) == ("jobs/..", "/abs/patch.yaml")
    assert found["profile"] == "jobs/../mine.toml"
    (tmp_path / "jobs" / "job.toml").write_text('profile = "gke"\n')
    assert values(parsed("submit", "-f", "jobs/job.toml"))["profile"] == "gke"
    (tmp_path / "jobs" / "job.toml").write_text('out = "runs/a"\n')
    assert values(parsed("run", "-f", "jobs/job.toml"))["out"] == "jobs/runs/a"


def test_one_file_does_for_both_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, 'nodes = 2\nvolume = ["data:/data"]\non = "compose"\n')
    assert parsed("run", "-f", file).params["backend"] == "compose"
    assert f"note: {file}: for `stackctl submit`, and not used here: volume" in capsys.readouterr().err
    assert parsed("submit", "-f", file).params["volumes"] == ("data:/data",)
    assert "for `stackctl run`, and not used here: on" in capsys.readouterr().err


WRONG: list[tuple[str, str]] = [
    ("\nnode-count = 2\n", "job.toml:2: node-count: there is no such key"),
    ("gpsu = 2\n", "did you mean 'gpus'?"),
    ("exclude_node = []\n", "did you mean 'exclude-node'?"),
    ("gpus = 1\n\n# two\nnodes = '2'\n", "job.toml:4: nodes: must be a number, and not '2'"),
    ("nodes = true\n", "job.toml:1: nodes: must be a number, and not true"),
    ("nodes = 1.5\n", "nodes: must be a number, and not 1.5"),
    ("name = 5\n", "job.toml:1: name: must be text, and not 5"),
    ("name = ['a']\n", "name: must be text, and not a list"),
    ("cpu = true\n", "cpu: must be text, and not true"),
    ("host-network = 'yes'\n", "host-network: must be true or false, and not 'yes'"),
    ("volume = 'data'\n", "job.toml:1: volume: must be a list of texts, as [\"…\"], and not 'data'"),
    ("volume = [\n  'data',\n  3,\n]\n", "job.toml:1: volume: must be a list of texts"),
    ("env = 'A=1'\n", "or a table, as { NAME = \"VALUE\" }, and not 'A=1'"),
    ("nodes = 1\n[env]\nA = '1'\nB = true\n", "job.toml:4: env.B: must be text, and not true"),
    ("env.A = 'x'\nenv.B = []\n", "job.toml:2: env.B: must be text, and not a list"),
    ("[label]\n'a=b' = 'c'\n", "job.toml:2: label.a=b: a name has no equals sign in it"),
    ("bind = 'always'\n", "job.toml:1: bind: must be one of auto, none, and not 'always'"),
    ("skip-check = ['room', 'rom']\n", "skip-check: must be one of namespace, access"),
    ("dry-run = 'somewhere'\n", "dry-run: must be one of client, server, and not 'somewhere'"),
    ("retries = \n", "job.toml: is no TOML: Invalid value (at line 1, column 11)"),
    ("workload = 'gpt'\ncommand = ['true']\n", "job.toml:2: command: does not go with workload"),
    ("command = 'true'\n", "command: must be a list of texts"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_file_is_one_error_with_file_line_and_key(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as error:
        parsed("submit", "-f", written(tmp_path, text))
    assert said in str(error.value)
    assert str(tmp_path / "job.toml") in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        parsed("submit", "-f", str(tmp_path / "absent.toml"))
    with pytest.raises(InvalidInput, match="to follow the logs there is --follow"):
        parsed("submit", "-f", "gpt")
    (tmp_path / "job.toml").write_bytes(b"name = '\xff'\n")
    with pytest.raises(InvalidInput, match="is not UTF-8"):
        parsed("submit", "-f", str(tmp_path / "job.toml"))
    (tmp_path / "job.toml").write_bytes(b"\xef\xbb\xbfnodes = 2\r\n")  # as Windows' editors write it
    assert parsed("submit", "-f", str(tmp_path / "job.toml")).params["nodes"] == 2


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("submit", "gpus = 0\nnodes = 0\n", "job.toml:2: nodes 0: must be from 1"),
        ("submit", "[label]\n'job-name' = 'x'\n", "job.toml:1: label job-name=x"),
        ("submit", "gpus = 1\nqueue = ''\n", "job.toml:2: queue: is empty"),
        ("submit", "volume = ['data:/dev']\n", "job.toml:1: volume data:/dev"),
        ("run", "port = 99999\n", "job.toml:1: port: must be from 1 to 65,535, and not 99999"),
    ],
)
def test_what_a_check_refuses_is_told_with_its_line(name: str, text: str, said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, [name, "-f", written(tmp_path, text), "--dry-run"], env={"KUBECONFIG": "absent"})
    assert said in str(result.exception)


def test_a_dry_run_of_a_file_is_that_of_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    text = 'name = "a"\nnodes = 2\ngpus = 8\nvolume = ["out"]\ncommand = ["python", "a.py"]\ndry-run = true\n'
    file = CliRunner().invoke(cli, ["submit", "-f", written(tmp_path, text)])
    line = "submit --name a --nodes 2 --gpus 8 --volume out --dry-run -- python a.py"
    words = CliRunner().invoke(cli, line.split())
    assert (file.exit_code, file.stdout) == (0, words.stdout)
    assert "python" in file.stdout


def test_a_resumed_run_has_its_job_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
    result = CliRunner().invoke(cli, ["run", "-f", written(tmp_path, "nodes = 2\n"), "--resume", "--name", "a"])
    assert "so --nodes cannot be given" in str(result.exception)


def test_options_in_sections() -> None:
    """Each new option lands in the section of its kin, and the page shows every option once."""
    shown = CliRunner().invoke(cli, ["submit", "--help"]).output
    titles = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles[0] == "Job:"
    assert "Options:" not in titles
    words = [max(option.opts, key=len) for option in submit.params if isinstance(option, click.Option)]
    found = {word: len(re.findall(rf"^  (?:-., )?{word}\b(?!-)", shown, re.MULTILINE)) for word in words}
    assert found == dict.fromkeys(words, 1)
