import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stackctl.jobs.kubernetes import CONTAINER
from stackctl.runs import store
from stackctl.runs.objects import Pod
from stackrt.contract import Reason
from stackrt.frameworks import FRAMEWORKS
from stackrt.launch import failure
from stackrt.launch.failure import Failure


def fail(time: float, cause: bool, name: str, echo: bool = False, inferred: bool = False) -> Failure:
    return Failure(time, cause, 1, {"name": name}, echo, inferred)


@pytest.mark.parametrize(
    ("failures", "chosen"),
    [
        ([fail(1, False, "a"), fail(2, False, "b")], "a"),
        ([fail(2, False, "a"), fail(1, False, "b")], "b"),
        ([fail(1.0, False, "echo"), fail(1.2, True, "cause")], "cause"),
        ([fail(1.2, True, "later"), fail(1.1, True, "sooner")], "sooner"),
        ([fail(1.0, False, "echo", echo=True), fail(1.2, False, "raised")], "raised"),
        ([fail(1.2, False, "echo", echo=True), fail(1.1, False, "first echo", echo=True)], "first echo"),
        ([fail(1.0, False, "raised"), fail(1.2, True, "cause", echo=True)], "cause"),
        ([fail(1.0, False, "perhaps caught", inferred=True), fail(1.2, False, "exit")], "exit"),
        ([fail(1.2, False, "perhaps caught", inferred=True), fail(1.0, False, "echo", echo=True)], "perhaps caught"),
    ],
)
def test_first(failures: list[Failure], chosen: str) -> None:
    assert failure.first(failures).report["name"] == chosen


@pytest.mark.parametrize(
    ("code", "signalled", "killed", "expected"),
    [
        (1, False, False, False),
        (-signal.SIGKILL, False, False, True),
        (-signal.SIGKILL, True, False, True),
        (-signal.SIGKILL, True, True, False),
        (-signal.SIGSEGV, False, False, True),
        (-signal.SIGSEGV, True, False, False),
        (-signal.SIGABRT, False, False, False),
        (-signal.SIGTERM, False, False, False),
    ],
)
def test_is_cause(code: int, signalled: bool, killed: bool, expected: bool) -> None:
    assert failure.is_cause(code, signalled, killed) is expected


KERAS_3 = "ValueError: Attempt to convert a value (PerReplica:{\n  0: <tf.Tensor>}) with an unsupported type"
NO_DRIVER = "cuda_cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used."
NO_LIBRARY = "W0000 gpu_device.cc:2365] Cannot dlopen some GPU libraries. Please make sure the missing libraries"
NO_AVX = (
    "cpu_feature_guard.cc:35] The TensorFlow library was compiled to use SSE4.1 AVX instructions, but these aren't "
    "available on your machine."
)
PORT = "UnknownError: Could not start gRPC server"


@pytest.mark.parametrize(
    ("code", "device", "said", "cause"),
    [
        (1, "cpu", KERAS_3, "TF_USE_LEGACY_KERAS=1"),
        (-signal.SIGABRT, "cpu", NO_AVX, "this CPU lacks instructions"),
        (-signal.SIGILL, "cpu", "", "an instruction that this CPU lacks"),
        (1, "cuda", NO_DRIVER, "cuda-libraries"),
        (1, "cuda", NO_LIBRARY, "cuda-libraries"),
        (1, "cpu", NO_DRIVER, None),
        (1, "cpu", PORT, "the port that TF_CONFIG gives"),
        (1, "cpu", "ValueError: bad sample", None),
    ],
)
def test_what_tensorflow_tells_obscurely(code: int, device: str, said: str, cause: str | None) -> None:
    found = failure.known_cause(FRAMEWORKS["tensorflow"].signs, code, device, f"up\n{said}\n")
    assert found is None if cause is None else cause in str(found)


def test_a_known_cause_is_told_with_the_end() -> None:
    assert failure.rank_sentence(1, 0, 1, "a", 3, cause="look at b").endswith("it exited with code 3; look at b")


def test_exit_codes_are_a_shells() -> None:
    assert [failure.exit_code(code) for code in (3, -9, -15)] == [3, 137, 143]


def test_only_a_launcher_that_was_told_to_stop_ends_as_one() -> None:
    assert [failure.launcher_code(code) for code in (3, -9, 75, 78, 128)] == [3, 137, 75, 78, 128]
    assert [failure.launcher_code(code) for code in (143, 130, 129, 131, -15, -2, -1, -3)] == [1] * 8


def test_a_rank_that_ends_as_if_it_had_been_stopped_is_said_to() -> None:
    assert "with code 143, though nothing had told the job to stop" in failure.rank_sentence(0, 0, 0, "a", 143)
    assert "killed by SIGTERM, not by the launcher" in failure.rank_sentence(0, 0, 0, "a", -15)


def report(lines: list[str]) -> failure.Report:
    return failure.report(
        "run",
        2,
        reason=Reason.RANK_FAILED,
        code=1,
        sentence="rank 1 failed",
        when=1.5,
        node=0,
        rank=1,
        last_lines=lines,
    )


def test_write_is_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    failure.write(report(["é"]), tmp_path / "out", tmp_path / "absent")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["failure.json"]
    assert json.loads((tmp_path / "out" / "failure.json").read_text()) == {
        "schema_version": 1,
        "run": "run",
        "attempt": 2,
        "reason": "rank-failed",
        "sentence": "rank 1 failed",
        "exit_code": 1,
        "time": "1970-01-01T00:00:01.500Z",
        "node": 0,
        "rank": 1,
        "local_rank": None,
        "host": None,
        "signal": None,
        "last_lines": ["é"],
    }
    assert not (tmp_path / "absent").exists()


def test_the_termination_log_is_written_only_where_it_is_and_fits(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_text("x" * 9000)
    failure.write_termination_log(report([f"line {number} " + "é" * 900 for number in range(30)]), path)
    content = json.loads(path.read_text())
    assert path.stat().st_size <= 4096
    assert content["last_lines"]
    assert content["last_lines"][-1].startswith("line 29"), "the last lines are the ones that tell"


def test_sentences() -> None:
    assert "out-of-memory" in failure.rank_sentence(0, 0, 0, "h", -9)
    assert "/dev/shm" in failure.rank_sentence(0, 0, 0, "h", -7)
    assert failure.rank_sentence(3, 1, 0, "h", 2).endswith("exited with code 2")
    assert failure.signal_name(64 - 1) == "signal 63"


def test_each_attempts_report_stays_with_its_logs(tmp_path: Path) -> None:
    logs = tmp_path / "logs" / "attempt-2"
    logs.mkdir(parents=True)
    failure.write(report([]), tmp_path, tmp_path / "absent")
    assert (logs / "failure.json").read_text() == (tmp_path / "failure.json").read_text()


def told(message: str) -> dict[str, Any]:
    """What stackctl reads of a pod's last message."""
    ended = {"terminated": {"exitCode": 0, "message": message}}
    pod = {"metadata": {}, "status": {"containerStatuses": [{"name": CONTAINER, "state": ended}]}}
    return msgspec.convert(pod, Pod).report


def test_a_result_is_the_last_message_packed_if_it_must_be_and_if_it_fits(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    short, long, never = "x", [f"row {number}" for number in range(1000)], os.urandom(5000).hex()
    for value, first, read in ((short, '{"text":"x"}', True), (long, '{"packed"', True), (never, "", False)):
        path.write_text("")
        (tmp_path / "result.json").write_text(json.dumps({"text": value}))
        failure.write_result(tmp_path, path=path)
        message = path.read_text()
        assert message.startswith(first)
        assert len(message) <= failure.TERMINATION_BYTES
        assert told(message) == ({"text": value} if read else {})
    failure.write_result(tmp_path / "absent", path=path)
    for wrong in ('{"packed": "no"}', '{"packed": "é"}', '{"packed": 3}'):
        assert told(wrong) in ({}, {"packed": 3})


@pytest.mark.parametrize(("text", "written"), [("[" * 100_000, ""), ('{"file": "a\\udcff"}', '{"file":"a?"}')])
def test_no_result_of_a_job_makes_its_launcher_fail(text: str, written: str, tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_text("")
    (tmp_path / "result.json").write_text(text)
    failure.write_result(tmp_path, path=path)
    assert path.read_text() == written


def test_a_result_that_is_a_pipe_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_text("")
    os.mkfifo(tmp_path / "result.json")
    failure.write_result(tmp_path, path=path)
    assert path.read_text() == ""
    assert store.read_json(tmp_path / "result.json") is None
