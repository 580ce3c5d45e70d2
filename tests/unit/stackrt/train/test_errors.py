"""How a program ends."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable

import pytest

from stackrt.train.errors import BadInputError, PeersGoneError, TrainerError, ended


def failing(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (TrainerError("the loss is no number"), 1, "error: the loss is no number\n"),
        (BadInputError("--steps 0"), 78, "error: --steps 0\n"),
        (PeersGoneError("rank 1 is gone"), PeersGoneError.exit_code, "error: rank 1 is gone\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/out/a"), 1, "error: /out/a: No space left on device\n"),
        (KeyboardInterrupt(), 128 + signal.SIGINT, ""),
    ],
)
def test_an_expected_end_is_one_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STACK_DEBUG", raising=False)
    assert ended(failing(error)) == code
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError(errno.EACCES, "no"), TypeError("another")])
def test_any_other_is_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error)):
        ended(failing(error))


def test_a_program_can_be_debugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_DEBUG", "1")
    with pytest.raises(TrainerError):
        ended(failing(TrainerError("x")))


def test_what_cannot_be_printed_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, printed in (("utf-8", b"caf\\udce9 \xe6\x97\xa5\n"), ("iso-8859-1", b"caf\\udce9 \\u65e5\n")):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
        assert ended(lambda: print(os.fsdecode(b"caf\xe9"), "日", flush=True) or 0) == 0
        assert written.getvalue() == printed
