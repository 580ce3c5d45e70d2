import json
import os
from pathlib import Path

import pytest

from stackrt.launch.raised import Raised, Watch, recorded

PLAIN = """\
step 5 loss 2.1
Traceback (most recent call last):
  File "train.py", line 9, in <module>
    main()
    ^^^^^^
ValueError: bad sample"""
TORCH = "\n".join(f"[rank1]: {line}" if index else line for index, line in enumerate(PLAIN.splitlines()))
CHAINED = f"""{PLAIN}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "train.py", line 12, in <module>
    raise RuntimeError("step 5") from error
RuntimeError: step 5"""
WORKER = """\
Traceback (most recent call last):
  File "train.py", line 3, in <module>
RuntimeError: Caught ValueError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "worker.py", line 349, in _worker_loop
ValueError: bad sample"""
LONG = """\
Traceback (most recent call last):
  File "train.py", line 3, in <module>
RuntimeError: CUDA error: device-side assert triggered
CUDA kernel errors might be asynchronously reported at some other API call.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1"""
LEAVING = f"{PLAIN}\n[W1129 10:00:00.1 ProcessGroupNCCL.cpp:1] destroy_process_group() was not called\nterminate called"
IGNORED = "Exception ignored in: <function D.__del__ at 0x7f>\n"
LOST = PLAIN.replace("ValueError: bad sample", "RuntimeError: [pair.cc:553] Connection closed by peer [10.0.0.2]:5")
WRAPPED = CHAINED.replace("ValueError: bad sample", "torch.distributed.DistBackendError: NCCL error: ncclRemoteError")


def seen(text: str) -> Raised | None:
    watch = Watch()
    for line in text.encode().split(b"\n"):
        watch.line(line, 1.0)
    watch.line(b"", 9.0)
    return watch.raised


@pytest.mark.parametrize(
    ("text", "said", "echo"),
    [
        (PLAIN, "ValueError: bad sample", False),
        (TORCH, "ValueError: bad sample", False),
        (CHAINED, "RuntimeError: step 5", False),
        (WORKER, "ValueError: bad sample", False),
        (LONG, "RuntimeError: CUDA error: device-side assert triggered", False),
        (LEAVING, "ValueError: bad sample", False),
        ("  0%| | 0/10 [00:00<?, ?it/s]" + PLAIN.partition("\n")[2], "ValueError: bad sample", False),
        (
            PLAIN + "\nException ignored in: <function D.__del__>\n" + LOST[LOST.index("Trace") :],
            "ValueError: bad sample",
            False,
        ),
        (PLAIN.replace("ValueError", "\x1b[1;35mValueError\x1b[0m\x07"), "ValueError: bad sample", False),
        (LOST, "RuntimeError: [pair.cc:553] Connection closed by peer [10.0.0.2]:5", True),
        (WRAPPED, "RuntimeError: step 5", True),
    ],
)
def test_the_exception_that_ends_a_rank(text: str, said: str, echo: bool) -> None:
    assert seen(text) == Raised(said, 1.0, echo)


@pytest.mark.parametrize(
    "text",
    [
        "Exception ignored in: <function D.__del__ at 0x7f>\n" + PLAIN[PLAIN.index("Trace") :],
        "Exception in thread Thread-1 (pump):\n" + PLAIN[PLAIN.index("Trace") :],
        "2026-11-29 ERROR train: " + PLAIN[PLAIN.index("Trace") :],
        "step 1",
        "Traceback (most recent call last):\n  File x",
        "  ValueError: no header",
    ],
)
def test_no_exception(text: str) -> None:
    assert seen(text) is None


def test_one_that_was_caught_is_followed_by_other_lines() -> None:
    watch = Watch()
    for line in PLAIN.encode().split(b"\n"):
        watch.line(line, 1.0)
    watch.line(b"retrying: 1 of 3", 1.01)
    assert watch.raised is not None, "it may belong to the message"
    watch.line(b"step 6 loss 2.0", 2.0)
    assert watch.raised is None


def test_what_torch_writes_down(tmp_path: Path) -> None:
    file = tmp_path / "rank-1.error.json"
    assert recorded(file) is None
    for content in ("", "{}", '{"message": 3}', '{"message": {"extraInfo": {}}}', "[]"):
        file.write_text(content)
        assert recorded(file) is None, content
    extra = {"py_callstack": "Traceback …\nValueError: bad", "timestamp": "1764453600"}
    file.write_text(json.dumps({"message": {"message": "ValueError: bad\nmore", "extraInfo": extra}}))
    os.utime(file, (5.0, 5.0))
    assert recorded(file) == Raised("ValueError: bad", 5.0, False, recorded=True)
    extra["py_callstack"] = "torch.distributed.DistNetworkError: gone\nValueError: bad"
    file.write_text(json.dumps({"message": {"message": "ValueError: bad", "extraInfo": extra}}))
    found = recorded(file)
    assert found is not None
    assert found.echo
    file.write_text(json.dumps({"message": "it ended"}))
    os.utime(file, (6.0, 6.0))
    assert recorded(file) == Raised("it ended", 6.0, False, recorded=True)
