"""Code on its way to a claim, and from there into a pod: the pods' programs as processes, over a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stackctl.engines import archive, code_tree
from stackctl.engines.code_tree import Tree
from stackctl.engines.exchange import Exchange
from stackctl.engines.wire import Plain, Wire
from stackctl.errors import InvalidInput, JobFailed
from stackctl.jobs import code_on_claim
from stackctl.runs import code_sender


def tree(folder: Path) -> Tree:
    return code_tree.read(folder, archive.look(folder))


@contextmanager
def receiving(claim: Path, sent: Tree) -> Iterator[Exchange]:
    """A conversation with the program that takes a tree."""
    ours, theirs = socket.socketpair()
    argv = [sys.executable, *code_on_claim.receive(str(claim), len(sent.text))[1:]]
    with subprocess.Popen(argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.STDOUT):
        theirs.close()
        session = Plain(Wire(ours))
        try:
            yield Exchange(session, 60)
        finally:
            session.close()


def send(claim: Path, sent: Tree) -> tuple[int, int]:
    with receiving(claim, sent) as exchange:
        return code_sender.give(exchange, sent)


def tidied(claim: Path, sent: Tree, *named: str) -> tuple[int, int]:
    """Send a tree, and have tidied up after it."""
    with receiving(claim, sent) as exchange:
        code_sender.give(exchange, sent)
        return code_sender.tidied(exchange, named)


def unpack(claim: Path, sent: Tree, target: Path) -> str:
    """Put a tree together; what is said of one that cannot be."""
    target.mkdir()
    argv = code_on_claim.unpack(str(claim), sent.sha256, str(target))
    return subprocess.run([sys.executable, *argv[1:]], check=False, capture_output=True, text=True).stderr.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "code"
    (path / "pkg").mkdir(parents=True)
    (path / "mine.py").write_text("print(1)\n")
    (path / "again.py").write_text("print(1)\n")
    (path / "empty").write_text("")
    (path / "pkg" / "run.sh").write_text("#!/bin/sh\n")
    (path / "pkg" / "run.sh").chmod(0o750)
    (path / "pkg" / "latest").symlink_to("run.sh")
    (path / "large").write_bytes(os.urandom(5_000_000))
    return path


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    path = tmp_path / "claim"
    path.mkdir()
    return path


def test_only_what_is_not_there_is_sent_and_what_is_unpacked_is_the_same(
    folder: Path, claim: Path, tmp_path: Path
) -> None:
    first = tree(folder)
    assert send(claim, first) == (4, 5_000_000 + 9 + 10)
    assert send(claim, first) == (0, 0)
    assert unpack(claim, first, tmp_path / "workspace") == ""
    assert tree(tmp_path / "workspace").text == first.text
    (folder / "mine.py").write_text("print(2)\n")
    second = tree(folder)
    assert send(claim, second) == (1, 9)
    assert unpack(claim, first, tmp_path / "earlier") == "", "what another run needs is still there"
    assert (tmp_path / "earlier" / "mine.py").read_text() == "print(1)\n"


def test_who_is_cut_off_leaves_nothing_in_part(folder: Path, claim: Path) -> None:
    sent = tree(folder)
    with receiving(claim, sent) as exchange:
        exchange.put(code_on_claim.receiver().encode() + sent.text)
        exchange.line()
        exchange.put(b"print")
    there = [path for path in claim.rglob("*") if path.is_file()]
    assert there == []
    assert send(claim, sent)[0] == 4


def test_a_file_that_changes_while_it_is_sent_is_not_kept(folder: Path, claim: Path) -> None:
    sent = tree(folder)
    (folder / "mine.py").write_text("print(3)\n")
    with pytest.raises(JobFailed, match="a file changed while it was sent"):
        send(claim, sent)
    (folder / "mine.py").write_text("")
    with pytest.raises(InvalidInput, match="has changed while it was sent"):
        send(claim, sent)


def test_what_is_damaged_or_gone_is_not_started(folder: Path, claim: Path, tmp_path: Path) -> None:
    sent = tree(folder)
    assert "is not on its claim (any more): submit the job again" in unpack(claim, sent, tmp_path / "none")
    send(claim, sent)
    [kept] = [path for path in claim.rglob("files/*/*") if path.stat().st_size == 9]
    kept.chmod(0o644)
    kept.write_text("print(9)\n")
    assert "is damaged on the claim" in unpack(claim, sent, tmp_path / "damaged")
    kept.unlink()
    assert "is not on the claim (any more)" in unpack(claim, sent, tmp_path / "gone")


def test_what_nobody_has_use_for_goes_after_a_month(folder: Path, claim: Path, tmp_path: Path) -> None:
    first = tree(folder)
    send(claim, first)
    (folder / "mine.py").write_text("print(2)\n")
    (folder / "large").write_bytes(b"small")
    second = tree(folder)
    send(claim, second)
    stray = next(claim.rglob("files/*")) / "cut.1-node"
    stray.write_text("part")

    def pass_by(days: float) -> None:
        for path in claim.rglob("*"):
            os.utime(path, (path.stat().st_mtime - days * 86_400,) * 2)

    pass_by(20)
    (folder / "mine.py").write_text("print(3)\n")
    third = tree(folder)
    assert tidied(claim, third) == (0, 0), "it is young"
    pass_by(20)
    assert tidied(claim, third, first.sha256) == (2, 9 + 4), "a run names the first, and the third was sent again"
    assert unpack(claim, first, tmp_path / "first") == ""
    assert "is not on its claim" in unpack(claim, second, tmp_path / "second")
    assert unpack(claim, third, tmp_path / "third") == ""
    pass_by(0.5)
    assert tidied(claim, third) == (0, 0), "once a day is enough"
    pass_by(40)
    assert tidied(claim, third) == (1, 5_000_000), "of the first what the third has not"
    assert unpack(claim, third, tmp_path / "again") == ""
