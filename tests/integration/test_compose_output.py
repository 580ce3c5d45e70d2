"""What the containers of a Compose project print reaches us whole, or we say why not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import ROOT, environment

pytestmark = [pytest.mark.needs("docker"), pytest.mark.usefixtures("leaves_nothing")]

CODE = "import sys; from pathlib import Path; from stackctl.engines import compose\n"
CODE += "assert not any(compose.run(Path(sys.argv[1]), sys.argv[2], {}))"


def project(folder: Path, image: str, prints: list[str], more: str = "") -> list[str]:
    """The command that runs a project: a container for each Python expression, which prints its value."""
    name = f"t{os.getpid()}-{time.monotonic_ns() % 10**9}"
    each = f"image: {image}, network_mode: none{more}, entrypoint: [python3, -c"
    rows = [f"  node-{node}: {{{each}, 'print({what})']}}\n" for node, what in enumerate(prints)]
    (folder / "compose.yaml").write_text("services:\n" + "".join(rows))
    return [sys.executable, "-c", CODE, str(folder / "compose.yaml"), name]


def test_long_lines_of_several_containers_stay_whole_in_a_pipe_that_does_not_block(image: str, tmp_path: Path) -> None:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    argv = project(tmp_path, image, [f'(chr({ord(each)}) * 60000 + chr(10)) * 20, end=""' for each in "abcd"])
    read = b""
    with subprocess.Popen(argv, env=environment(), cwd=ROOT, stdout=writable) as running:
        os.close(writable)
        while data := os.read(readable, 1 << 16):
            read += data
            time.sleep(0.005)  # they are faster
    os.close(readable)
    assert running.returncode == 0
    assert sorted(read.decode().splitlines()) == [each * 60000 for each in "abcd" for _ in range(20)]


def test_output_that_the_engine_does_not_keep_is_a_note(image: str, tmp_path: Path) -> None:
    argv = project(tmp_path, image, ["1", "2"], ", logging: {driver: none}")
    done = subprocess.run(argv, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.count("note: ") == 1
    assert "logging driver does not support reading" in done.stderr
