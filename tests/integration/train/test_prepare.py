"""`prepare` as processes: the same bytes however it is run and however often it is killed; what is broken is named."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stackctl.engines.process import find
from stackrt.train.shards import Shards
from tests.commands import ROOT, Stackctl
from tests.support.trainers import Trainers, environment

pytestmark = pytest.mark.needs("torch")

OPTIONS = ["--tokenizer", "bpe", "--vocab-size", "400", "--shard-bytes", "30000"]
SMALL = ["--layers", "1", "--heads", "2", "--width", "16", "--context", "16", "--vocab-size", "400", "--lr", "3e-3",
         "--eval-tokens", "500", "--sample-tokens", "4", "--log-every", "1", "--eval-every", "50"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of about 300 KB in two files, JSONL and text."""
    folder = tmp_path_factory.mktemp("data")
    lines = [
        f"document {number}: {'to be or not to be ' * (number % 9)}{number * number}\nthe end" for number in range(1500)
    ]
    with (folder / "a.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": line}) + "\n" for line in lines)
    (folder / "b.txt").write_text("\n\n".join(lines[:700]))
    return folder


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    folder = tmp_path_factory.mktemp("whole") / "shards"
    done = prepare("--data", str(data), "--to", str(folder), *OPTIONS)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def ranks() -> Iterator[Any]:
    """Start ranks as a launcher would; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(world: int, *words: str) -> list[subprocess.Popen[str]]:
        began = [
            subprocess.Popen([sys.executable, "-m", "stackrt.train.prepare", *words], text=True,
                             env=environment(RANK=str(rank), WORLD_SIZE=str(world)),
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for rank in range(world)
        ]  # fmt: skip
        started.extend(began)
        return began

    yield start
    for process in started:
        process.kill()
        process.communicate()


def prepare(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stackrt.train.prepare", *words]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_ranks_under_stackctl_write_the_bytes_of_one(
    data: Path, whole: Path, stackctl: Stackctl, tmp_path: Path
) -> None:
    done = stackctl("run", "prepare", "--procs", "2", "--json", "--", "--data", str(data), *OPTIONS)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert content(Path(outcome["folder"]) / "shards") == content(whole)
    result = json.loads((Path(outcome["folder"]) / "result.json").read_text())
    assert (result["workload"], result["world_size"]) == ("prepare", 2)
    assert result["documents"] == Shards(whole).shards[-1].documents + sum(
        s.documents for s in Shards(whole).shards[:-1]
    )
    assert result["tokens"] == Shards(whole).tokens


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_two_nodes_in_compose_write_the_bytes_of_one(
    image: str, data: Path, whole: Path, stackctl: Stackctl, tmp_path: Path
) -> None:
    """The data is in the working folder, which containers only read, and the shards go to the run's folder."""
    code, out = tmp_path / "code", tmp_path / "out"
    shutil.copytree(data, code / "data")
    (code / "data").chmod(0o755)
    tmp_path.chmod(0o755)  # containers run as another user than root
    words = ["run", "prepare", "--nodes", "2", "--on", "compose", "--out", str(out), "--", "--data", "data", *OPTIONS]
    done = stackctl(*words, cwd=code)
    assert done.returncode == 0, done.stderr
    assert content(out / "shards") == content(whole)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with pyspark: 430 MB to download, once, as uv keeps what it builds of it, and links that later."""
    folder = tmp_path_factory.mktemp("spark")
    uv = find("uv")
    assert uv
    options = ["--no-deps", "--require-hashes", "--target", str(folder), "--python", sys.executable]
    subprocess.run([uv, "pip", "install", "--quiet", *options, "-r", str(ROOT / "locks" / "spark.txt")], check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.needs("java", "index")
@pytest.mark.timeout(900)  # a new machine downloads Spark first
def test_spark_writes_the_same_bytes(data: Path, whole: Path, spark: Path, tmp_path: Path) -> None:
    program = ROOT / "docs" / "examples" / "spark" / "prepare.py"
    paths = os.pathsep.join(filter(None, (str(ROOT / "images"), str(spark), os.environ.get("PYTHONPATH"))))
    env = environment(PYTHONPATH=paths, PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    command = [sys.executable, str(program), "--data", str(data), "--to", str(tmp_path / "shards"), *OPTIONS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "shards") == content(whole)


def test_killed_and_started_again_with_others_the_bytes_are_the_same(
    data: Path, whole: Path, ranks: Any, tmp_path: Path
) -> None:
    """Killed at its first, then at a later shard, by 3, 2 and 1 processes; in the end nothing half-written is left."""
    to = tmp_path / "shards"
    words = ["--data", str(data), "--to", str(to), *OPTIONS]
    for world, shards in ((3, 1), (2, 5)):
        started = ranks(world, *words)
        deadline = time.monotonic() + 60
        while len(list(to.glob("shard-*.bin"))) < shards:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()
    (to / ".shard-000001.bin.other-1.tmp").write_bytes(b"half")  # as of another machine
    kept = {path.name: path.stat().st_mtime_ns for path in to.glob("shard-*.bin")}
    done = prepare(*words)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} of them are there" in done.stdout
    assert content(to) == content(whole)
    assert {name: (to / name).stat().st_mtime_ns for name in kept} == kept, "what was there was made again"


def test_verify_names_what_is_damaged_and_prepare_mends_it(data: Path, whole: Path, tmp_path: Path) -> None:
    to = tmp_path / "shards"
    shutil.copytree(whole, to)
    assert "whole " in prepare("--verify", "--to", str(to)).stdout
    bad = bytearray((to / "shard-000001.bin").read_bytes())
    bad[5000] ^= 1
    (to / "shard-000001.bin").write_bytes(bad)
    (to / "shard-000003.bin").write_bytes((to / "shard-000003.bin").read_bytes()[:-8])
    (to / "shard-000004.bin").unlink()
    failed = prepare("--verify", "--to", str(to))
    assert failed.returncode == 1
    found = [line.partition(str(to) + "/")[2] for line in failed.stdout.splitlines()]
    assert [line.partition(": ")[0] for line in found] == [f"shard-00000{number}.bin" for number in (1, 3, 4)]
    assert ["checksum" in found[0], "bytes of" in found[1], "missing" in found[2]] == [True] * 3
    assert "error: 3 of " in failed.stderr
    (to / "shard-000001.bin").unlink()
    assert prepare("--data", str(data), "--to", str(to), *OPTIONS).returncode == 0
    assert content(to) == content(whole)


def test_a_broken_line_is_told_by_the_rank_that_has_it(ranks: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n' * 200 + '{"text": "bad\n' + '{"text": "good"}\n' * 10)
    started = ranks(2, "--data", str(path), "--to", str(tmp_path / "to"), "--shard-bytes", "2000")
    code, output = started[1].wait(60), started[1].stdout.read()
    assert code == 78
    assert output.count("\n") == 1
    assert output.startswith(f"error: {path}:201: is not JSON: ")


def test_a_disk_that_fills_leaves_whole_shards_and_goes_on(data: Path, whole: Path, small_disk: Path) -> None:
    to, ballast = small_disk / "shards", small_disk / "ballast"
    ballast.write_bytes(b"x" * ((2 << 20) - 130_000))
    words = ["--data", str(data), "--to", str(to), *OPTIONS]
    failed = prepare(*words)
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert "could not be written: No space left on device; free some space and start again" in line
    there = content(to)
    assert 0 < len(there) < len(content(whole))
    assert there.items() <= content(whole).items()
    ballast.unlink()
    assert prepare(*words).returncode == 0
    assert content(to) == content(whole)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "{data}/absent"], "No such file or directory"),
        (["--data", "{whole}", "--to", "{new}"], "no file in it ends in .txt"),
        (["--verify", "--to", "{new}"], "Is a directory without index.json: no prepared data"),
        (["--data", "{data}", "--to", "{whole}"], "was made with --shard-bytes 30000, not"),
        (["--data", "{data}", "--to", "{new}", "--tokenizer", "gpt2"], "--tokenizer gpt2: gpt2: No such file"),
    ],
)
def test_what_cannot_work_is_one_line_from_rank_0(
    data: Path, whole: Path, ranks: Any, tmp_path: Path, words: list[str], expected: str
) -> None:
    before = content(whole)
    (tmp_path / "new").mkdir()
    started = ranks(2, *(word.format(data=data, whole=whole, new=tmp_path / "new") for word in words))
    assert started[0].wait(60) == 78
    first, second = (process.stdout.read() for process in started)
    assert first.startswith("error: ")
    assert expected in first
    assert (first.count("\n"), second) == (1, "")
    assert content(whole) == before


def test_parquet_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    failed = prepare("--data", str(tmp_path / "a.parquet"), "--to", str(tmp_path / "to"))
    assert failed.returncode == 78
    wanted = "is no whole parquet file" if has_pyarrow() else "parquet needs the package pyarrow"
    assert f"error: --data {tmp_path}/a.parquet: {wanted}" in failed.stderr


def has_pyarrow() -> bool:
    with contextlib.suppress(ImportError):
        import pyarrow  # noqa: F401

        return True
    return False


def test_gpt_trains_on_it_and_says_what_is_missing(whole: Path, trainers: Trainers, tmp_path: Path) -> None:
    argv = [*SMALL, "--data", str(whole), "--steps", "12", "--batch-size", "4"]
    printed = trainers.run([*argv, "--out", str(tmp_path / "out")], tmp_path / "log")
    assert f"text    {whole}; " in printed
    assert "(bpe, 400 kinds)" in printed
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["last_train_loss"] < result["first_train_loss"]
    assert result["tokens"] == 12 * 4 * 16
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken)
    (broken / "shard-000002.bin").unlink()
    for given, expected in (
        (["--data", str(broken)], f"--data {broken}/shard-000002.bin: it is missing; run the same `prepare` again"),
        (["--data", str(tmp_path)], f"--data {tmp_path}: Is a directory without index.json"),
        (["--data", str(whole), str(broken)], "--data: give one prepared folder, or files of text"),
        (["--data", str(whole), "--vocab-size", "256"], "tokens of 400 kinds; give --vocab-size 400 or more"),
    ):
        started = trainers.start_ranks(1, 2, [*argv, *given, "--out", str(tmp_path / "no")], tmp_path / "logs")
        assert [rank.wait(60) for rank in started] == [78, 78]
        assert expected in started[0].output.splitlines()[-1]


def test_a_run_goes_on_with_other_ranks_and_reads_what_comes_next(
    whole: Path, trainers: Trainers, tmp_path: Path
) -> None:
    """6 steps by 2 ranks of 4 sequences, then 3 by one of 8, then by 3 ranks of 4: the position goes on from each."""

    def sequences(out: Path, step: int) -> int:
        import torch

        state = torch.load(out / "checkpoints" / f"step-{step:06d}.pt", weights_only=True)
        return int(state["sequences"])

    def losses(out: Path) -> list[float]:
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [row["loss"] for row in rows if "loss" in row]

    argv = [*SMALL, "--data", str(whole), "--steps", "9", "--checkpoint-every", "3", "--keep", "9"]
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    trainers.run([*argv, "--batch-size", "8", "--out", str(one)], tmp_path / "one.log")
    trainers.run_ranks(1, 2, [*argv, "--batch-size", "4", "--out", str(two)], tmp_path / "two.logs")
    assert losses(two) == pytest.approx(losses(one), abs=1e-4), "the same documents in each step"
    assert sequences(two, 6) == 48
    resumed = [*argv, "--resume", str(two / "checkpoints" / "step-000006.pt")]
    trainers.run([*resumed, "--batch-size", "8", "--out", str(three)], tmp_path / "three.log")
    assert losses(three) == pytest.approx(losses(one)[6:], abs=1e-4), "what an unbroken run reads next"
    more = tmp_path / "more"
    trainers.run_ranks(1, 3, [*resumed, "--batch-size", "4", "--out", str(more)], tmp_path / "more.logs")
    assert sequences(more, 9) == 48 + 3 * 12
    result = json.loads((more / "result.json").read_text())
    assert result["tokens"] == (48 + 3 * 12) * 16
