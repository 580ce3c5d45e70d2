from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from stackctl.cli import main as entry
from stackctl.cli.main import COMMANDS, cli
from stackctl.jobs import job as jobs
from stackctl.runs import store
from stackrt.signals import STOPS


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """At its end the command line ignores stops, and so would all that later tests start."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


RUNS = [
    (["run", "gpt", "--nodes", "0", "--dry-run"], 2, "--nodes 0: must be from 1"),
    (["run", "gtp", "--dry-run"], 2, "did you mean 'gpt'?"),
    (["run", "python", "mine.py"], 2, "go behind `--`"),
    (["run", "gpt", "--on", "kubernets"], 2, "is not one of 'local', 'compose'"),
    (["run", "gpt", "--procs", "two"], 2, "'two' is not a valid integer"),
    (["run", "gpt", "--env", "NOT_SET_ANYWHERE", "--dry-run"], 2, "is not set in your environment"),
    (["run", "gpt", "--port", "99999"], 2, "99999 is not in the range"),
    (["run", "gpt", "--gpu", "2"], 2, "No such option"),
    (["run", "gpt", "--out", ""], 2, "--out: is empty"),
    (["run", "--resume"], 2, "name it with --name or --out"),
    (["run", "--resume", "--name", "absent-run"], 2, "there is no run to resume"),
    (["run", "gpt", "--resume", "--name", "absent-run"], 2, "so the command cannot be given"),
    (["run", "--resume", "--name", "absent-run", "--nodes", "3"], 2, "so --nodes cannot be given"),
    (["submit", "--nodes", "0"], 2, "--nodes 0: must be from 1"),
    (["submit", "gtp", "--dry-run"], 2, "did you mean 'gpt'?"),
    (["submit", "--name", "1st", "--dry-run"], 2, "starts with a letter"),
    (["submit", "--profile", "gek", "--dry-run"], 2, "did you mean 'gke'?"),
    (["submit", "--skip-check", "quotas", "--dry-run"], 2, "is not one of 'namespace', 'access'"),
    (["submit", "--volume", "data:/dev", "--dry-run"], 2, "/dev has a use already"),
    (["submit", "--env", "1X=y", "--dry-run"], 2, "is not a name for an environment variable"),
    (["submit", "--dry-run=somewhere"], 2, "is not one of 'client', 'server'"),
    (["submit", "--code", "absent-folder", "--dry-run"], 2, "--code absent-folder: is no folder"),
    (["submit", "--context", "absent", "--dry-run"], 2, "has no such context"),
    (["submit", "--name", "a"], 3, "there is no kubeconfig"),
    (["submit", "--name", "", "--dry-run"], 2, "--name: is empty"),
    (["submit", "--queue", "", "--dry-run"], 2, "--queue: is empty"),
    (["submit", "--code-claim", "", "--dry-run"], 2, "--code-claim: is empty"),
    (["run", "--name", "", "--dry-run", "--", "true"], 2, "--name: is empty"),
    (["run", "--name", "a" * 300, "--dry-run", "--", "true"], 2, "letters, digits and dashes, 50 at most"),
    (["run", "--env", "A=\udcff", "--dry-run", "--", "true"], 2, "--env A: its value is not UTF-8"),
    (["run", "--", __file__], 2, "is a file here, and no program\n  name the program that runs it, as in `-- python "),
    (["cancel", "-n", "", "a"], 2, "--namespace: is empty"),
    (["cancel", ""], 2, "'': is not the name of a run"),
    (["logs", "../a"], 2, "'../a': is not the name of a run"),
    (["submit", "--image", "", "--dry-run"], 2, "--image: is empty"),
    (["submit", "mine.py", "--dry-run"], 2, "as in `-- python mine.py`"),
    (["submit", "python", "mine.py", "--dry-run"], 2, "submit … -- python mine.py"),
    (["status", "absent-run"], 3, "there is no kubeconfig"),
    (["build", "pytroch"], 2, "did you mean 'pytorch'?"),
    (["build", "pytorch", "--variant", "gpu"], 2, "no variant of image 'pytorch' is named 'gpu'"),
    (["test"], 2, "Missing argument 'IMAGE'"),
    (["test", "pytorch", "--only", "lokc-match"], 2, "did you mean 'lock-match'?"),
    (["test", "pytorch", "--tag", "fielsystem"], 2, "did you mean 'filesystem'?"),
    (["test", "pytorch", "--require", "gpus"], 2, "must be gpu, multi-gpu, multi-node, or a number of GPUs"),
    (["test", "pytorch", "--variant", "gpu"], 2, "no variant of image 'pytorch' is named 'gpu'"),
    (["test", "mine:1", "--variant", "cpu"], 2, "--variant: 'mine:1' is no image of the catalog"),
    (["test", "pytorch", "--nodes", "0"], 2, "--nodes 0: must be from 1"),
    (["test", "pytorch", "--nodes", "2", "--on", "docker"], 2, "use --on compose for several nodes"),
    (["test", "pytorch", "--burn", "-1"], 2, "is not in the range"),
    (["test", "tensorflow", "--burn", "60"], 2, "--burn 60: the check burn is not in this run: images with PyTorch"),
    (["test", "pytorch", "--gpus", "8"], 2, "--gpus: is for a cluster"),
    (["test", "pytorch", "--exclude-node", "a"], 2, "--exclude-node: is for a cluster"),
    (["test", "pytorch", "--on", "kubernetes", "--nodes", "1", "--gpus", "0", "--label", "a"], 2, "must be KEY=VALUE"),
    (["submit", "gpt", "-f"], 2, "to follow the logs there is --follow"),
    (["submit", "-f", "gpt"], 2, "to follow the logs there is --follow"),
    (["submit", "--patch", "absent.yaml", "--dry-run"], 2, "--patch absent.yaml: cannot be read: No such file"),
    (["test", "pytorch", "--on", "kubernetes", "--nodes", "2", "--all-nodes"], 2, "do not go together"),
    (["test", "pytorch", "--on", "kubernetes", "--nodes", "0", "--gpus", "8"], 2, "--nodes 0: must be from 1"),
    (["test", "pytorch", "--on", "kubernetes", "--nodes", "1", "--gpus", "-1"], 2, "--gpus -1: must be from 0"),
    (["test", "pytorch", "--on", "kubernetes"], 3, "there is no kubeconfig"),
    (["test", "pytorch", "--json", "/absent/report.json"], 2, "--json /absent/report.json: cannot be written"),
    (["test", "pytorch", "--junit", "/absent/report.xml"], 2, "--junit /absent/report.xml: cannot be written"),
    (["test", "pytorch", "--compare", "/absent/old.json"], 2, "--compare /absent/old.json: cannot be read"),
    (["bulid"], 2, "did you mean 'build'?"),
]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the entry point as the shell would; return the exit code."""
    monkeypatch.setattr(sys, "argv", ["stackctl", *words])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(("words", "code", "said"), RUNS)
def test_bad_input_is_one_clear_error_with_the_right_code(
    words: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
    assert run(monkeypatch, *words) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_a_fault_of_ours_is_told_without_a_traceback_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stackctl.jobs.workloads.load", lambda: 1 / 0)
    assert run(monkeypatch, "workloads") == 1
    assert "ZeroDivisionError" in (said := capsys.readouterr().err)
    assert "--debug" in said
    monkeypatch.setattr(sys, "argv", ["stackctl", "--debug", "workloads"])
    with pytest.raises(ZeroDivisionError):
        entry.main()


def test_errors_are_red_at_a_terminal_that_wants_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda stream, color: color is False)  # as at a terminal
    run(monkeypatch, "run", "nosuch")
    assert "\x1b[31m" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    run(monkeypatch, "run", "nosuch")
    assert capsys.readouterr().err.startswith("error: ")


def test_ctrl_c_while_a_class_is_made_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python 3.11 gives a RuntimeError there, caused by the KeyboardInterrupt. From 3.12 on click sees the interrupt
    itself, and first ends the line on which the terminal shows ^C."""

    class Interrupting:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("stackctl.jobs.workloads.load", lambda: type("Made", (), {"it": Interrupting()}))
    assert run(monkeypatch, "workloads") == 130
    assert capsys.readouterr().err.lstrip() == "error: interrupted\n"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_an_agreeing_line_in_the_table(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.get_short_help_str(200).rstrip(".") in COMMANDS[name][1].rstrip(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"


def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
    for words in (["--port", "29400"], ["--on", "compose"]):
        result = CliRunner().invoke(cli, ["run", "gpt", "--nodes", "2", "--procs", "2", "--dry-run", *words])
        assert result.exit_code == 0, result.output
        assert "stackrt.train.gpt" in result.output
        assert "STACK_TOKEN=" not in result.output
    assert not (tmp_path / "runs").exists()


def test_a_script_on_the_command_line_may_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of a command are looked for as files; no file's name is that long."""
    monkeypatch.setenv("STACK_RUNS", str(tmp_path))
    result = CliRunner().invoke(cli, ["submit", "--dry-run", "--", "python", "-c", "print(1)\n" * 1000])
    assert result.exit_code == 0, result.output


def test_a_user_without_a_name_or_a_home_is_at_home_in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STACK_RUNS", "XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, "/x")  # to be put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert CliRunner().invoke(cli, ["run", "gpt", "--dry-run", "--port", "1"], catch_exceptions=False).exit_code == 0
    assert os.environ["HOME"] == "/"


def test_a_tab_completes_without_a_home_and_says_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("STACK_RUNS", "XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, "/x")  # to be put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    (tmp_path / "file").touch()
    monkeypatch.setenv("_STACKCTL_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setattr(sys, "argv", ["stackctl"])
    for runs, line in (("", "status"), (str(tmp_path / "file"), "status"), ("", "nosuch")):
        monkeypatch.setenv("STACK_RUNS", runs)
        monkeypatch.setenv("COMP_WORDS", f"stackctl {line} ")
        with pytest.raises(SystemExit):
            entry.main()
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("encoding", "printed"), [("utf-8", "caf\udce9 … 日".encode(errors="surrogateescape")), ("latin-1", b"caf\xe9 ? ?")]
)
def test_what_a_terminal_has_no_letters_for_is_printed_all_the_same(
    encoding: str, printed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    monkeypatch.setattr(cli, "main", lambda **_: print("caf\udce9 … 日", end="", flush=True))
    with pytest.raises(SystemExit):
        entry.main()
    assert written.getvalue() == printed


def test_a_dry_run_as_json_is_json() -> None:
    words = ["run", "--name", "a", "--nodes", "2", "--port", "29400", "--dry-run", "--json", "--", "python", "x.py"]
    nodes = json.loads(CliRunner().invoke(cli, words).stdout)
    assert [node["env"]["STACK_NODE_RANK"] for node in nodes] == ["0", "1"]
    assert nodes[0]["argv"][-2:] == ["python", "x.py"]


def test_options_behind_the_dashes_belong_to_the_command() -> None:
    words = ["run", "--nodes", "1", "--port", "1", "--dry-run", "--", "python", "x.py", "--nodes", "9", "--", "z"]
    output = CliRunner().invoke(cli, words).output
    assert "python x.py --nodes 9 -- z" in output
    assert "STACK_NODES=1" in output


def test_neither_workload_nor_command_means_the_reference_gpt() -> None:
    assert "stackrt.train.gpt" in CliRunner().invoke(cli, ["run", "--port", "1", "--dry-run"]).output


def test_build_dry_run_prints_the_command_line() -> None:
    result = CliRunner().invoke(
        cli,
        ["build", "pytorch", "--variant", "cpu", "--dry-run"],
        env={"SSL_CERT_FILE": "", "STACK_IMAGE_PREFIX": None},
    )
    assert result.output.startswith("docker buildx build --load --tag stack-pytorch:cpu")


def test_a_build_of_all_leaves_out_what_is_built_on_demand() -> None:
    plain = {"SSL_CERT_FILE": "", "STACK_IMAGE_PREFIX": None}
    everything = CliRunner().invoke(cli, ["build", "--dry-run"], env=plain).output
    assert "--tag stack-pytorch:cuda " in everything
    assert "stack-pytorch-next" not in everything
    named = CliRunner().invoke(cli, ["build", "pytorch-next", "--dry-run"], env=plain).output
    assert "--tag stack-pytorch-next:cuda " in named


def test_a_dry_run_of_the_suite_can_be_run_as_it_is_printed() -> None:
    result = CliRunner().invoke(cli, ["test", "pytorch", "--only", "lock-match,ulimits", "--dry-run"])
    assert result.output.startswith("docker run --rm --name stackctl-test-")
    assert result.output.endswith("--only lock-match ulimits --json - --report-only\n")
    result = CliRunner().invoke(cli, ["test", "pytorch", "--nodes", "2", "--dry-run"])
    assert list(yaml.safe_load(result.output)["services"]) == ["node-0", "node-1"]


def test_a_suite_on_a_cluster_goes_where_a_job_would() -> None:
    words = ["--on", "kubernetes", "--nodes", "1", "--gpus", "0", "--toleration", "a", "--run-as", "7", "--dry-run"]
    result = CliRunner().invoke(cli, ["test", "pytorch", *words], env={"KUBECONFIG": "absent"})
    spec = next(yaml.safe_load_all(result.stdout))["spec"]["template"]["spec"]
    assert {"key": "a", "operator": "Exists"} in spec["tolerations"]
    assert spec["securityContext"]["runAsUser"] == 7


@pytest.mark.parametrize(("image", "code"), [("horovod-pytorch-mpi", 0), ("horovod-pytorch", 2), ("mine:1", 0)])
def test_a_check_is_known_where_the_image_has_its_framework(
    image: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "test", image, "--only", "mpi-basic", "--dry-run") == code


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    assert "_STACKCTL_COMPLETE" in CliRunner().invoke(cli, ["completion", shell]).output


def test_names_of_checks_are_completed() -> None:
    shell = ShellComplete(cli, {}, "stackctl", "_STACKCTL_COMPLETE")
    found = shell.get_completions(["submit", "--skip-check"], "qu")
    assert [row.value for row in found] == ["queue", "quota"]


def test_names_complete() -> None:
    from stackctl.cli import complete

    context, parameter = click.Context(cli), click.Argument(["x"])
    assert complete.images(context, parameter, "te") == ["tensorflow"]
    assert complete.workloads(context, parameter, "g") == ["gpt"]


@pytest.mark.parametrize(
    ("words", "framework"),
    [
        (["--image", "horovod-pytorch", "--", "true"], "horovod"),
        (["--image", "tensorflow", "--", "true"], "tensorflow"),
        (["--image", "mine:1", "--", "true"], "torch"),
        (["cnn"], "tensorflow"),
        (["horovod-tf"], "horovod"),
    ],
)
def test_ranks_are_started_as_the_image_expects(words: list[str], framework: str) -> None:
    result = CliRunner().invoke(cli, ["run", "--on", "compose", "--dry-run", *words])
    assert f"STACK_FRAMEWORK: {framework}\n" in result.output


def dry_run(*words: str) -> str:
    result = CliRunner().invoke(cli, ["submit", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_dry_run_of_a_submission_prints_manifests_and_is_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    words = ["--nodes", "2", "--gpus", "8", "--name", "a"]
    text = dry_run("--dry-run", "gpt", *words)
    kinds = [row["kind"] for row in yaml.safe_load_all(text)]
    assert kinds == ["Job", "Secret", "Service", "NetworkPolicy"]
    assert dry_run("gpt", *words, "--dry-run=client") == text
    assert len(json.loads(dry_run("gpt", *words, "--dry-run", "-o", "json"))["items"]) == 4
    own = dry_run("--dry-run", "--name", "a", "--", "tool", "--dry-run")
    assert "- --dry-run" in own, "what follows -- is the command's"


def test_a_script_that_would_not_be_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    result = CliRunner().invoke(cli, ["submit", "--dry-run", "--name", "a", "--", "python", "mine.py"])
    assert "not mine.py of this folder; ship it with --code ." in result.stderr


def test_runs_are_listed_without_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_RUNS", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    job = jobs.make(name="a", workload="gpt")
    store.create(tmp_path / "a", job, resume=False)
    record = store.Record(name="a", backend="local", attempt=1, started=store.now(), state="failed")
    store.write_json(tmp_path / "a" / "run.json", record)
    store.write_json(tmp_path / "a" / "failure.json", {"sentence": "rank 1 failed", "last_lines": ["boom"]})
    logs = tmp_path / "a" / "logs" / "attempt-1"
    logs.mkdir(parents=True)
    (logs / "rank-0.log").write_text("step 1\n")
    said = {
        words[0]: CliRunner().invoke(cli, words)
        for words in (["list"], ["status", "a"], ["explain", "a"], ["logs", "a"])
    }
    assert said["list"].stdout.splitlines()[1].split()[:3] == ["a", "failed", "local"]
    assert "rank 1 failed" in said["status"].stdout
    assert "| boom" in said["explain"].stdout
    assert said["logs"].stdout == "[0] step 1\n"
    waited = CliRunner().invoke(cli, ["wait", "a"])
    assert "rank 1 failed" in str(waited.exception)
    shown = CliRunner().invoke(cli, ["list", "--json"])
    assert json.loads(shown.stdout)[0]["state"] == "failed"
